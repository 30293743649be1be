"""Augmentation: what each step does to images and masks, and that it is the sample's own."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from torchvision.transforms.v2 import functional

from cardamage.config.augmentation import Augmentation
from cardamage.data.images import decode_image, encoded
from cardamage.data.shards.order import augmentation_generator
from cardamage.training.augment import affine_inverse, augment, warp

KINDS = {
    "horizontal_flip": {},
    "vertical_flip": {},
    "affine": {"rotate": 40, "scale": [0.7, 1.4], "translate": 0.2, "shear": 15},
    "random_resized_crop": {"scale": [0.1, 0.6], "on_damage": 0.5},
    "colour": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2},
    "blur": {"sigma": [0.3, 2.0]},
    "noise": {"sigma": [4.0, 20.0]},
    "jpeg": {"quality": [20, 60]},
}
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
OUTSIDE = (124, 116, 104)  # ImageNet's mean colour
COLOURS = np.array([OUTSIDE, (250, 20, 20), (20, 20, 250)])


def step(name, probability=1.0, **options):
    section = {"name": name, "probability": probability, **options}
    return TypeAdapter(Augmentation).validate_python(section)


def augmented(images, masks, *steps, samples=(0,), epoch=1, seed=0):
    samples = np.array(samples)
    epochs = np.full(len(samples), epoch)
    return augment(images, masks, steps, seed=seed, epochs=epochs, samples=samples)


def blobs(count, height, width):
    """Images of two rectangles each, painted in the colours of the classes of their masks."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, height, width), np.uint8)
    for mask in masks:
        for class_id in (1, 2):
            top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
            mask[top : top + height // 3, left : left + width // 3] = class_id
    images = COLOURS[masks].astype(np.uint8).transpose(0, 3, 1, 2)
    return torch.from_numpy(images.copy()), torch.from_numpy(masks)


def noise(count, height, width):
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def numbered(height, width):
    """An image and a mask of 1, 2, 3, ..., row by row."""
    mask = torch.arange(1, height * width + 1, dtype=torch.uint8).view(1, height, width)
    return mask[:, None].expand(1, 3, height, width), mask


@pytest.mark.parametrize(
    ("name", "expected"),
    [("horizontal_flip", [[3, 2, 1], [6, 5, 4]]), ("vertical_flip", [[4, 5, 6], [1, 2, 3]])],
)
def test_a_flip_mirrors_both_and_two_flips_neither(name, expected):
    image, mask = augmented(*numbered(2, 3), step(name))
    assert mask[0].tolist() == image[0, 0].tolist() == expected
    _, mask = augmented(*numbered(2, 3), step(name), step(name))
    assert mask.equal(numbered(2, 3)[1])


def test_which_samples_are_flipped_never_changes():
    """Runs of the first version continue with the samples they would have had."""
    images, masks = noise(12, 2, 3), numbered(2, 3)[1].repeat(12, 1, 1)
    steps = [step("horizontal_flip", 0.5), step("vertical_flip", 0.5)]
    _, seen = augmented(images, masks, *steps, samples=range(12), epoch=3, seed=7)
    drawn = np.array([augmentation_generator(7, 3, n).random(2) for n in range(12)]) < 0.5
    assert (seen[:, 0, 0] % 3 != 1).tolist() == drawn[:, 0].tolist()
    assert (seen[:, 0, 0] > 3).tolist() == drawn[:, 1].tolist()
    assert drawn.any(axis=0).all()
    assert not drawn.all(axis=0).any()


@pytest.mark.parametrize(
    ("options", "draws", "expected"),
    [
        # a quarter turn clockwise
        ({"rotate": 90}, [1, 0, 0.5, 0.5, 0.5], [[9, 5, 1], [10, 6, 2], [11, 7, 3]]),
        # a third of the side to the right, and up
        ({"translate": 1 / 3}, [0.5, 0, 1, 0, 0.5], [[0, 5, 6], [0, 9, 10], [0, 0, 0]]),
        # the top row moves one pixel left, the bottom row one right
        ({"shear": 45}, [0.5, 0, 0.5, 0.5, 0], [[0, 1, 2], [5, 6, 7], [10, 11, 0]]),
    ],
)
def test_affine_moves_by_hand(options, draws, expected):
    mask = torch.tensor([[[1, 2, 3], [5, 6, 7], [9, 10, 11]]], dtype=torch.uint8)
    options = {"rotate": 0, "scale": [1, 1], "translate": 0, "shear": 0} | options
    matrix = affine_inverse(step("affine", **options), draws, 3, 3)
    image, seen = warp(mask[:, None].expand(1, 3, 3, 3), mask, torch.tensor([matrix]))
    assert seen[0].tolist() == expected
    for channel, outside in zip(image[0], OUTSIDE, strict=True):
        assert channel.tolist() == [[value or outside for value in row] for row in expected]


def test_scaled_by_two_the_middle_fills_the_image():
    image, mask = numbered(4, 8)
    options = {"rotate": 0, "scale": [2, 2], "translate": 0}
    _, seen = augmented(image, mask, step("affine", **options))
    assert seen[0, :, ::2].tolist() == [[11, 12, 13, 14]] * 2 + [[19, 20, 21, 22]] * 2
    assert seen[0, :, 1::2].equal(seen[0, :, ::2])


def test_the_whole_as_a_crop_is_the_image_itself():
    images, masks = noise(1, 61, 97), blobs(1, 61, 97)[1]
    crop = step("random_resized_crop", scale=[1, 1], ratio=[1, 1])
    seen = augmented(images, masks, crop)
    assert seen[0].equal(images)
    assert seen[1].equal(masks)


@pytest.mark.parametrize("name", ["affine", "random_resized_crop"])
@pytest.mark.parametrize("size", [(96, 96), (97, 61)])
def test_image_and_mask_move_together(name, size):
    images, masks = blobs(8, *size)
    seen, moved = augmented(images, masks, step(name, **KINDS[name]), samples=range(8))
    assert (moved != masks).float().mean() > 0.1
    distance = np.abs(seen.numpy()[:, None] - COLOURS[None, :, :, None, None]).sum(axis=2)
    agree = distance.argmin(axis=1) == moved.numpy()
    assert agree.mean() > 0.99  # all but some pixels at edges


def test_a_crop_on_damage_holds_damage():
    masks = torch.zeros(200, 61, 97, dtype=torch.uint8)
    places = np.random.default_rng(2).integers(0, 61 * 97, 200)
    masks.flatten(1)[np.arange(200), places] = 1
    masks[0] = 0  # nothing to be on
    options = {"scale": [0.01, 0.02], "ratio": [0.5, 2]}
    images = noise(200, 61, 97)
    for on_damage in (1.0, 0.0):
        crop = step("random_resized_crop", on_damage=on_damage, **options)
        _, seen = augmented(images, masks, crop, samples=range(200))
        held = seen.flatten(1).any(1)
        assert not held[0]
        assert held[1:].all() if on_damage else held.sum() < 20


def cropped(images, masks, on_damage, **asked):
    section = {"name": "crop", "size": [20, 33], "on_damage": on_damage}
    step = TypeAdapter(Augmentation).validate_python(section)
    return augmented(images, masks, step, **asked)


def test_a_part_of_fixed_size_is_a_window_of_the_image_and_its_mask():
    images, masks = noise(1, 40, 50), torch.zeros(1, 40, 50, dtype=torch.uint8)
    masks[0, 31, 44] = 1
    starts = set()
    for epoch in range(1, 30):
        part, mask = cropped(images, masks, 1.0, epoch=epoch)
        assert part.shape == (1, 3, 20, 33)
        down, across = (mask[0] > 0).nonzero()[0].tolist()  # the damage is inside
        top, left = 31 - down, 44 - across
        assert torch.equal(part, images[..., top : top + 20, left : left + 33])
        starts.add((top, left))
    assert len(starts) > 20
    assert all(12 <= top <= 20 and 12 <= left <= 17 for top, left in starts)


def test_parts_lie_anywhere_where_damage_does_not_count():
    images, masks = blobs(8, 40, 50)
    samples = range(8)
    parts, found = cropped(images, masks, 0.0, samples=samples)
    for number in samples:
        alone, mask = cropped(
            images[number : number + 1], masks[number : number + 1], 0.0, samples=[number]
        )
        assert torch.equal(alone[0], parts[number])
        assert torch.equal(mask[0], found[number])
    whole = TypeAdapter(Augmentation).validate_python({"name": "crop", "size": [40, 50]})
    assert torch.equal(augmented(images, masks, whole, samples=samples)[0], images)


def test_every_pixel_of_damage_may_be_the_one_cropped_to():
    masks = torch.zeros(40, 32, 32, dtype=torch.uint8)
    masks[:, 0, 0], masks[:, 31, 31] = 1, 2
    crop = step("random_resized_crop", on_damage=1.0, scale=[0.05, 0.05])
    _, seen = augmented(noise(40, 32, 32), masks, crop, samples=range(40))
    assert {(1 in mask, 2 in mask) for mask in seen} == {(True, False), (False, True)}


def test_colours_change_as_torchvision_changes_them():
    images, masks = noise(1, 24, 32), torch.zeros(1, 24, 32, dtype=torch.uint8)
    seen, _ = augmented(images, masks, step("colour", **KINDS["colour"]))
    shares = 2 * augmentation_generator(0, 1, 0).random(5)[1:] - 1
    expected = images.float() / 255
    expected = functional.adjust_brightness(expected, 1 + 0.4 * shares[0])
    expected = functional.adjust_contrast(expected, 1 + 0.4 * shares[1])
    expected = functional.adjust_saturation(expected, 1 + 0.4 * shares[2])
    expected = functional.adjust_hue(expected, 0.2 * shares[3])
    assert (seen - 255 * expected).abs().max() <= 1


def test_blur_is_a_gaussian_of_its_sigma():
    image = torch.zeros(1, 3, 15, 15, dtype=torch.uint8)
    image[:, :, 7, 7] = 255
    seen, _ = augmented(image, image[:, 0], step("blur", sigma=[1.0, 1.0]))
    expected = functional.gaussian_blur(image, [7, 7], [1.0, 1.0])
    assert (seen.int() - expected.int()).abs().max() <= 1
    assert seen[0, 0, 7, 7] == 41  # 255 / (2 pi), nearly


def test_noise_has_its_deviation():
    image = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    seen, _ = augmented(image, image[:, 0], step("noise", sigma=[10.0, 10.0]))
    assert 9.5 < seen.float().std() < 10.5
    assert abs(seen.float().mean() - 128) < 0.5


def test_jpeg_is_that_of_its_quality():
    image = noise(1, 16, 24)
    seen, _ = augmented(image, image[:, 0], step("jpeg", quality=[30, 30]))
    photo = Image.fromarray(image[0].permute(1, 2, 0).numpy())
    expected = decode_image(encoded(photo, "JPEG", quality=30), name="x")
    assert np.array_equal(seen[0].permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(96, 96), (97, 61)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_a_sample_comes_out_the_same_in_any_batch(name, size, device):
    images, masks = noise(6, *size).to(device), blobs(6, *size)[1].to(device)
    steps = [step(name, 0.7, **KINDS[name]), step("affine", 0.5)]
    together = augmented(images, masks, *steps, samples=range(6))
    assert together[0].dtype == together[1].dtype == torch.uint8
    assert not together[0].equal(images)
    for samples in ([4], [5, 2, 0, 3, 1], [1, 3]):
        alone = augmented(images[samples], masks[samples], *steps, samples=samples)
        assert all(part.equal(whole[samples]) for part, whole in zip(alone, together, strict=True))
    other = augmented(images, masks, *steps, samples=range(6), epoch=2)
    assert not other[0].equal(together[0])


@pytest.mark.parametrize("name", [name for name in KINDS if name != "horizontal_flip"])
def test_what_a_step_does_changes_nothing_of_what_the_next_draws(name):
    still = {
        "affine": {"rotate": 0, "scale": [1, 1], "translate": 0},
        "random_resized_crop": {"scale": [1, 1], "ratio": [1, 1]},
    }
    images, masks = noise(9, 8, 8), torch.arange(8, dtype=torch.uint8).expand(9, 8, 8)
    never, always = (
        augmented(images, masks, before, step("horizontal_flip", 0.5), samples=range(9))[1]
        for before in (step(name, chance, **still.get(name, {})) for chance in (0.0, 1.0))
    )
    assert never.equal(always)
    assert not never.equal(masks)


@pytest.mark.parametrize("name", KINDS)
def test_probability_0_never_and_1_always(name):
    images, masks = noise(5, 16, 24), blobs(5, 16, 24)[1]
    never = augmented(images, masks, step(name, 0.0, **KINDS[name]), samples=range(5))
    assert never[0].equal(images)
    assert never[1].equal(masks)
    always, _ = augmented(images, masks, step(name, **KINDS[name]), samples=range(5))
    assert not any(a.equal(b) for a, b in zip(always, images, strict=True))
