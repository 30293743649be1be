import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from cardamage.evaluation.confusion import Tally, confusion_counts


def test_counts_by_hand():
    target = torch.tensor([[[0, 1], [2, 2]], [[1, 1], [1, 1]]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 2], [2, 1]], [[1, 0], [1, 1]]])
    assert confusion_counts(predicted, target, 3).tolist() == [
        [[1, 0, 0], [0, 0, 1], [0, 1, 1]],
        [[0, 0, 0], [1, 3, 0], [0, 0, 0]],
    ]


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 9))
def test_every_pixel_is_counted_once(seed, images, classes):
    generator = torch.Generator().manual_seed(seed)
    shape = (images, 5, 7)
    target = torch.randint(classes, shape, generator=generator)
    predicted = torch.randint(classes, shape, generator=generator)
    counts = confusion_counts(predicted, target.to(torch.uint8), classes)
    assert counts.sum(dim=(1, 2)).tolist() == [35] * images
    for t in range(classes):
        for p in range(classes):
            both = ((target == t) & (predicted == p)).sum(dim=(1, 2))
            assert torch.equal(counts[:, t, p], both)


def test_rows_come_back_in_the_order_of_their_positions():
    tally, accelerator = Tally(2), Accelerator(cpu=True)
    for position in (2, 0, 1):
        pixels = torch.full((1, 1, 3), position % 2)
        tally.add(torch.tensor([position]), pixels, pixels, torch.tensor([float(position)]))
    rows = tally.gather(accelerator)
    assert rows["positions"].tolist() == [0, 1, 2]
    assert rows["loss"].tolist() == [0.0, 1.0, 2.0]
    assert rows["loss"].dtype == torch.float64
    assert rows["counts"][:, 1, 1].tolist() == [0, 3, 0]


def test_a_restored_tally_goes_on_where_it_was():
    accelerator = Accelerator(cpu=True)
    first = Tally(2)
    pixels = torch.ones((1, 1, 1), dtype=torch.int64)
    first.add(torch.tensor([0]), pixels, pixels, torch.tensor([0.5]))
    second = Tally(2)
    second.restore(first.gather(accelerator))
    second.add(torch.tensor([1]), pixels, pixels, torch.tensor([0.25]))
    assert second.gather(accelerator)["loss"].tolist() == [0.5, 0.25]


def test_an_empty_tally_gathers_to_no_rows():
    rows = Tally(3).gather(Accelerator(cpu=True))
    assert {key: tuple(value.shape) for key, value in rows.items()} == {
        "positions": (0,),
        "counts": (0, 3, 3),
        "loss": (0,),
    }
