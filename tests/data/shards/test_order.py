"""The order of samples: every epoch whole, whoever shares the work, and the same for ever."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardamage.data.shards.loader import load
from cardamage.data.shards.order import (
    augmentation_generator,
    batch_at,
    class_weights,
    epoch_order,
    shares,
    steps_until,
)
from cardamage.data.shards.reader import ShardReader
from tests.helpers.small_export import packed_export

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 300)
epochs = st.integers(1, 9999)
WORLD_SIZES = (1, 2, 3, 4, 6)


@given(seeds, sizes, epochs)
def test_an_epoch_has_each_sample_once(seed: int, samples: int, epoch: int) -> None:
    order = epoch_order(seed, samples, epoch)
    assert order.dtype == np.int64
    assert np.sort(order).tolist() == list(range(samples))


@pytest.mark.parametrize(
    ("seed", "epoch", "order"),
    [
        (0, 1, [4, 7, 8, 6, 1, 2, 9, 0, 5, 3]),
        (0, 2, [2, 3, 1, 4, 7, 6, 5, 0, 8, 9]),
        (7, 1, [3, 6, 5, 0, 1, 4, 9, 2, 7, 8]),
        (2**32 - 1, 9999, [0, 8, 3, 5, 4, 6, 7, 9, 1, 2]),
    ],
)
def test_the_order_never_changes(seed: int, epoch: int, order: list[int]) -> None:
    assert epoch_order(seed, 10, epoch).tolist() == order


def test_the_augmentation_never_changes() -> None:
    draws = [augmentation_generator(0, e, s).random() for e, s in ((1, 0), (1, 1), (2, 0))]
    assert draws == [0.9799939816368156, 0.32493475191253474, 0.790174605053907]


@given(seeds, st.integers(20, 200), st.integers(1, 500))
def test_epochs_and_seeds_differ_in_order(seed: int, samples: int, epoch: int) -> None:
    order = epoch_order(seed, samples, epoch).tolist()
    assert order != epoch_order(seed, samples, epoch + 1).tolist()
    assert order != epoch_order((seed + 1) % 2**32, samples, epoch).tolist()


def test_the_weighted_order_never_changes_and_keeps_to_the_weights() -> None:
    weights = (1.0, 2.0, 1.0, 4.0)
    order = epoch_order(3, 4, 2, weights)
    keys = np.random.Philox(np.random.SeedSequence((3, 0, 2))).random_raw(4)
    places = (keys >> np.uint64(11)) / 2.0**53 * 8  # of 8: 1 for the first, 2 for the second, ...
    assert order.tolist() == [int(np.digitize(place, [1, 3, 4])) for place in places]
    many = np.concatenate([epoch_order(0, 4, epoch, weights) for epoch in range(1, 2001)])
    assert np.abs(np.bincount(many) / 1000 - weights).max() < 0.15


def test_weights_of_classes() -> None:
    """Background everywhere, a class in one of four photos, one in two of them, one in none."""
    shown = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]], dtype=bool)
    assert class_weights(shown) == pytest.approx((2, 2**0.5, 1, 1))


def test_weighted_batches_tell_repeated_samples_apart() -> None:
    """Epoch 1 of 5 samples and the start of epoch 2, cut into batches of three or all at once."""
    weights = (1.0, 1.0, 1.0, 1.0, 6.0)
    samples, epochs = batch_at(0, 5, 10, 0, weights)
    order = np.concatenate([epoch_order(0, 5, epoch, weights) for epoch in (1, 2)])
    assert samples.tolist() == order.tolist()
    assert (epochs % 10_000).tolist() == [1] * 5 + [2] * 5
    assert len(set(zip(samples.tolist(), epochs.tolist(), strict=True))) == 10
    assert epochs[order == 4].tolist() == [
        epoch + 10_000 * times
        for epoch in (1, 2)
        for times in range(np.count_nonzero(epoch_order(0, 5, epoch, weights) == 4))
    ]
    cut = [batch_at(0, 5, 2, step, weights) for step in range(5)]
    assert np.concatenate([batch[1] for batch in cut]).tolist() == epochs.tolist()


def test_a_kept_order_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(0, 5, 1)[0] = 3


@given(seeds, sizes, st.data())
def test_batches_are_the_endless_stream_cut_evenly(
    seed: int, samples: int, data: st.DataObject
) -> None:
    batch_size = data.draw(st.integers(1, samples))
    steps = steps_until(samples, batch_size, 3)
    batches = [batch_at(seed, samples, batch_size, step) for step in range(steps)]
    assert all(len(chosen) == len(inside) == batch_size for chosen, inside in batches)
    stream = np.concatenate([chosen for chosen, _ in batches])
    in_epoch = np.concatenate([inside for _, inside in batches])
    for epoch in (1, 2, 3):
        there = slice((epoch - 1) * samples, epoch * samples)
        assert stream[there].tolist() == epoch_order(seed, samples, epoch).tolist()
        assert set(in_epoch[there].tolist()) == {epoch}


@given(sizes, st.integers(0, 100), st.data())
def test_an_epoch_ends_with_the_first_step_that_reaches_it(
    samples: int, epoch: int, data: st.DataObject
) -> None:
    batch_size = data.draw(st.integers(1, samples))
    steps = steps_until(samples, batch_size, epoch)
    assert steps * batch_size >= epoch * samples
    assert (steps - 1) * batch_size < epoch * samples


@pytest.mark.parametrize(
    ("samples", "batch_size", "epoch", "steps"),
    [(10, 4, 0, 0), (10, 4, 1, 3), (10, 4, 2, 5), (10, 5, 3, 6), (502, 16, 10, 314), (1, 1, 7, 7)],
)
def test_steps_by_hand(samples: int, batch_size: int, epoch: int, steps: int) -> None:
    assert steps_until(samples, batch_size, epoch) == steps


@given(st.integers(0, 400), st.integers(1, 40))
def test_shares_are_the_whole_in_order(items: int, parts: int) -> None:
    cut = shares(items, parts)
    assert len(cut) == parts
    assert [i for share in cut for i in range(items)[share]] == list(range(items))
    lengths = [share.stop - share.start for share in cut]
    assert max(lengths) - min(lengths) <= 1
    assert all(a.stop == b.start for a, b in pairwise(cut))


@given(seeds, sizes, st.integers(0, 50), st.data())
def test_ranks_share_each_global_batch(
    seed: int, samples: int, step: int, data: st.DataObject
) -> None:
    batch_size = data.draw(st.integers(1, samples))
    whole, in_epoch = batch_at(seed, samples, batch_size, step)
    for world_size in WORLD_SIZES:
        ranks = shares(batch_size, world_size)
        assert np.concatenate([whole[rank] for rank in ranks]).tolist() == whole.tolist()
        assert np.concatenate([in_epoch[rank] for rank in ranks]).tolist() == in_epoch.tolist()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    folder: Path = packed_export(tmp_path_factory.mktemp("order"))
    with ShardReader(folder, "train") as opened:
        yield opened


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_ranks_really_read_each_global_batch(
    reader: ShardReader, world_size: int, workers: int
) -> None:
    seed, samples, batch_size = 3, len(reader), 6
    steps = range(steps_until(samples, batch_size, 3))
    plan = [batch_at(seed, samples, batch_size, step) for step in steps]
    ranks = [
        list(load(reader, [(s[rank], e[rank]) for s, e in plan], workers=workers))
        for rank in shares(batch_size, world_size)
    ]
    for step, (whole, _) in enumerate(plan):
        read = np.concatenate([batches[step].samples for batches in ranks])
        assert read.tolist() == whole.tolist()
        images = np.concatenate([batches[step].images.numpy() for batches in ranks])
        expected = np.stack([reader.read(int(number)).image for number in whole])
        np.testing.assert_array_equal(images, expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_an_evaluation_reads_each_sample_once(
    reader: ShardReader, world_size: int, workers: int
) -> None:
    read = [
        number
        for rank in shares(len(reader), world_size)
        for batch in load(
            reader,
            [(np.arange(len(reader))[rank], None)] if rank.stop > rank.start else [],
            workers=workers,
        )
        for number in batch.samples.tolist()
    ]
    assert read == list(range(len(reader)))
