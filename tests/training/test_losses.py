import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from cardamage.config.recipe import CrossEntropy, Dice, Focal, Lovasz, SegNet, Tversky
from cardamage.errors import ConfigError
from cardamage.models import build_model
from cardamage.training.losses import build_loss, check_logits, cross_entropy, tversky


def test_cross_entropy_is_each_images_mean_over_pixels():
    # Two images of two pixels; logits (0, ln 3) give probabilities 1/4 and 3/4.
    logits = torch.zeros(2, 2, 1, 2)
    logits[:, 1] = math.log(3)
    target = torch.tensor([[[1, 1]], [[0, 1]]], dtype=torch.uint8)
    loss = cross_entropy(logits, target)
    expected = [-math.log(3 / 4), -(math.log(1 / 4) + math.log(3 / 4)) / 2]
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_is_float32_for_bfloat16_logits():
    loss = cross_entropy(torch.zeros(1, 3, 2, 2).bfloat16(), torch.zeros(1, 2, 2))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(3))


def test_dice_is_each_images_mean_over_the_classes():
    # Probabilities 1/4 and 3/4 in two pixels. First image: both are of class 1, so class 0 has
    # nothing but 1/2 painted, and class 1 has 3/2 of 2 pixels. One is added above and below.
    logits = torch.zeros(2, 2, 1, 2)
    logits[:, 1] = math.log(3)
    target = torch.tensor([[[1, 1]], [[0, 1]]], dtype=torch.uint8)
    first = (1 - 1 / (0.5 + 1) + 1 - (2 * 1.5 + 1) / (1.5 + 2 + 1)) / 2
    second = (1 - (2 * 0.25 + 1) / (0.5 + 1 + 1) + 1 - (2 * 0.75 + 1) / (1.5 + 1 + 1)) / 2
    assert tversky(logits, target).tolist() == pytest.approx([first, second], rel=1e-6)


def test_dice_of_a_perfect_map_is_zero_and_of_a_wrong_one_nears_one():
    target = torch.tensor([[[0, 1]], [[0, 1]]], dtype=torch.uint8).repeat(1, 50, 50)
    shown = functional.one_hot(target.long(), 2).movedim(-1, 1) * 100.0
    assert tversky(shown, target).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert tversky(shown.flip(1), target).tolist() == pytest.approx([1, 1], abs=1e-3)


def drawn(classes=3):
    """Logits of 4 images of 6 x 5 pixels, and masks, the last of which shows class 0 alone."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, classes, 6, 5, generator=generator) * 2
    target = torch.randint(0, classes, (4, 6, 5), generator=generator)
    target[3] = 0
    return logits, target


def pixel_by_pixel(loss):
    """Each image's mean of what ``loss(probabilities, class)`` says of its pixels."""
    logits, target = drawn()
    shares = logits.double().softmax(1).movedim(1, -1)
    return [
        sum(loss(p, int(t)) for p, t in zip(s.flatten(0, 1), m.flatten(), strict=True)) / 30
        for s, m in zip(shares, target, strict=True)
    ]


@pytest.mark.parametrize(
    ("section", "by_hand"),
    [
        (
            CrossEntropy(class_weights=[0.5, 1.0, 4.0]),
            lambda p, t: -(0.5, 1.0, 4.0)[t] * p[t].log(),
        ),
        (
            CrossEntropy(class_weights=3),  # of every class but the background
            lambda p, t: -(1.0, 3.0, 3.0)[t] * p[t].log(),
        ),
        (
            CrossEntropy(class_weights="balanced"),  # 60, 30 and 10 of 100 pixels
            lambda p, t: -(100 / (3 * (60, 30, 10)[t])) * p[t].log(),
        ),
        (
            CrossEntropy(label_smoothing=0.3),
            lambda p, t: -(0.7 * p[t].log() + 0.1 * p.log().sum()),
        ),
        (Focal(name="focal", gamma=2.0), lambda p, t: -((1 - p[t]) ** 2) * p[t].log()),
        (Focal(name="focal", gamma=0.0), lambda p, t: -p[t].log()),
    ],
)
def test_pixel_losses_by_hand(section, by_hand):
    found = build_loss([section], (60, 30, 10))(*drawn())
    assert found.tolist() == pytest.approx([float(v) for v in pixel_by_pixel(by_hand)], rel=1e-5)


def test_a_class_no_training_mask_shows_cannot_be_balanced():
    with pytest.raises(ConfigError, match="class id 2"):
        build_loss([CrossEntropy(class_weights="balanced")], (60, 40, 0))


def regions(price, *, only_shown):
    """Tversky loss of each image, class by class."""
    logits, target = drawn()
    found = []
    for share, mask in zip(logits.double().softmax(1), target, strict=True):
        losses = []
        for number in range(3):
            there = (mask == number).double()
            if only_shown and not there.any():
                continue
            hit = float((share[number] * there).sum())
            invented, missed = float(share[number].sum()) - hit, float(there.sum()) - hit
            costs = price[0] * invented + price[1] * missed
            losses.append(1 - (hit + 0.5) / (hit + costs + 0.5))
        found.append(sum(losses) / len(losses))
    return found


@pytest.mark.parametrize("classes", ["all", "shown"])
def test_region_losses_by_hand(classes):
    options = {"only_shown": classes == "shown"}
    both = build_loss([Tversky(name="tversky", classes=classes)], (1, 1, 1))(*drawn())
    assert both.tolist() == pytest.approx(regions((0.3, 0.7), **options), rel=1e-5)
    halves = build_loss([Dice(name="dice", classes=classes)], (1, 1, 1))(*drawn())
    assert halves.tolist() == pytest.approx(regions((0.5, 0.5), **options), rel=1e-5)


def test_lovasz_is_that_of_segmentation_models_pytorch():
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, target = drawn()
    theirs = smp.losses.LovaszLoss(mode="multiclass", per_image=True)
    expected = [theirs(logits[i : i + 1], target[i : i + 1]).item() for i in range(4)]
    found = build_loss([Lovasz(name="lovasz")], (1, 1, 1))(logits, target)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_lovasz_of_hard_maps_is_one_less_the_iou():
    # The extension meets the set function where all errors are 0 or 1.
    logits, target = torch.full((1, 2, 2, 2), -50.0), torch.tensor([[[1, 1], [0, 0]]])
    logits[0, 1, 0, 0] = logits[0, 0, 0, 1] = logits[0, 0, 1, 0] = logits[0, 0, 1, 1] = 50.0
    found = build_loss([Lovasz(name="lovasz")], (1, 1))(logits, target)
    assert found.item() == pytest.approx(((1 - 2 / 3) + (1 - 1 / 2)) / 2)


def test_several_losses_are_added_up_by_their_weights():
    logits, target = drawn()
    sections = [CrossEntropy(weight=0.25), Dice(name="dice", weight=2.0)]
    parts = [build_loss([CrossEntropy()], (1,)), build_loss([Dice(name="dice")], (1,))]
    expected = 0.25 * parts[0](logits, target) + 2 * parts[1](logits, target)
    assert torch.allclose(build_loss(sections, (1, 1, 1))(logits, target), expected)


@pytest.mark.parametrize(
    "section",
    [CrossEntropy(class_weights="balanced", label_smoothing=0.1), Dice(name="dice"),
     Tversky(name="tversky", classes="shown"), Focal(name="focal", gamma=0.5),
     Lovasz(name="lovasz")],
)  # fmt: skip
def test_every_loss_is_of_each_image_alone_and_has_finite_slopes(section):
    logits, target = drawn()
    logits[0] *= 1000  # as sure as float32 can be, right or wrong
    logits.requires_grad_()
    loss_of = build_loss([section], (60, 30, 10))
    together = loss_of(logits, target)
    alone = torch.cat([loss_of(logits[i : i + 1], target[i : i + 1]) for i in range(4)])
    assert together.dtype == torch.float32
    assert torch.allclose(together, alone, rtol=1e-6)
    together.sum().backward()
    assert bool(torch.isfinite(logits.grad).all())
    assert loss_of(logits.detach().bfloat16(), target).dtype == torch.float32


def test_probabilities_are_refused_before_cross_entropy():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(dim=1))
    with pytest.raises(ConfigError, match="sum to one"):
        check_logits(model, (8, 8))


def test_the_studys_softmax_would_be_refused_too():
    model = build_model(SegNet(name="segnet2", softmax_output=True), 3)
    with pytest.raises(ConfigError, match="softmax_output"):
        check_logits(model, (8, 8))


@pytest.mark.parametrize("training", [True, False])
def test_logits_pass_and_the_mode_is_kept(training):
    model = build_model(SegNet(name="segnet2"), 3).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_logits(model, (8, 8))
    assert model.training is training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_two_softmaxes_keep_the_loss_above_the_studys_floor():
    # The study's finding: with three classes the loss cannot fall below ln(1 + 2/e) = 0.551.
    perfect = torch.zeros(1, 3, 1, 1)
    perfect[:, 0] = 1.0
    loss = cross_entropy(perfect, torch.zeros(1, 1, 1))
    assert loss.item() == pytest.approx(math.log(1 + 2 / math.e), rel=1e-6)
    assert loss.item() == pytest.approx(0.551, abs=5e-4)
