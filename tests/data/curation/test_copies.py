"""Which images are copies of each other, on images whose copies are known."""

import io

import numpy as np
import pytest
from PIL import Image

from cardamage.data.curation.copies import (
    Photo,
    groups_of_copies,
    look_of,
    photo_of,
    same_bytes,
    same_look,
    same_stem,
    stem_of,
)


def scene(seed: int, size: int = 160) -> Image.Image:
    """Blotches of 10 pixels: large enough to survive what photos go through."""
    blotches = np.random.default_rng(seed).integers(0, 256, (size // 10, size // 10, 3))
    image = Image.fromarray(blotches.astype(np.uint8))
    return image.resize((size, size), Image.Resampling.BICUBIC)


def photo(name: str, seed: int, split: str = "train", *, quality: int = 90) -> Photo:
    stream = io.BytesIO()
    scene(seed).save(stream, "JPEG", quality=quality)
    return photo_of(split, name, stream.getvalue(), Image.open(stream))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("car_jpg.rf.0123.jpg", "car_jpg"),
        ("a.rf.b_jpg.rf.0123.jpg", "a.rf.b_jpg"),
        ("car.v1.jpg", "car.v1.jpg"),
        ("sub/car_jpg.rf.0123.jpg", "sub/car_jpg"),
    ],
)
def test_stems(name, stem):
    assert stem_of(name) == stem


def test_a_look_by_hand():
    """Each column is 4 levels brighter than the one before but for the last, 3 levels brighter."""
    row = np.array([*range(0, 64, 4), 63], dtype=np.uint8)
    image = Image.fromarray(np.tile(row, (16, 1)))
    line = "1" * 15 + "0"
    assert look_of(image) == int(line * 16, 2)


def test_even_surfaces_have_no_look():
    assert look_of(Image.new("RGB", (300, 200), (90, 90, 90))) is None
    assert look_of(Image.new("L", (1, 1))) is None


def bits_apart(one: Image.Image, other: Image.Image) -> int:
    looks = look_of(one), look_of(other)
    assert None not in looks
    return (looks[0] ^ looks[1]).bit_count()


def test_a_look_survives_size_quality_and_light():
    stream = io.BytesIO()
    original = scene(1)
    lighter = original.resize((97, 97)).point(lambda value: min(255, value + 6))
    lighter.save(stream, "JPEG", quality=50)
    assert bits_apart(original, Image.open(stream)) <= 8
    assert min(bits_apart(scene(1), scene(seed)) for seed in range(2, 40)) > 30


def test_same_stem_bytes_and_look():
    photos = [
        photo("a_jpg.rf.1.jpg", 1),
        photo("a_jpg.rf.2.jpg", 2, "test"),
        photo("b.jpg", 3),
        photo("c.jpg", 3, "valid"),
        photo("d.jpg", 4),
        photo("e.jpg", 4, "test", quality=60),
        photo("f.jpg", 5),
    ]
    names = [[[p.name for p in g] for g in f(photos)] for f in (same_stem, same_bytes, same_look)]
    assert names == [
        [["a_jpg.rf.1.jpg", "a_jpg.rf.2.jpg"]],
        [["b.jpg", "c.jpg"]],
        [["d.jpg", "e.jpg"]],
    ]
    assert groups_of_copies(photos) == [[0, 1], [2, 3], [4, 5], [6]]


def test_copies_hang_together_over_others():
    """a and b have one stem, b and c one content, c and d one look."""
    photos = [
        photo("p_jpg.rf.1.jpg", 1),
        photo("x.jpg", 9),
        photo("p_jpg.rf.2.jpg", 2),
        photo("q.jpg", 2),
        photo("r.jpg", 2, quality=60),
    ]
    assert groups_of_copies(photos) == [[0, 2, 3, 4], [1]]


def test_every_pair_within_eight_bits_is_found():
    """Against comparing each with each."""
    random = np.random.default_rng(0)
    looks = [int.from_bytes(random.bytes(32)) for _ in range(60)]
    for look in looks[:40]:
        flips = random.choice(256, size=int(random.integers(1, 17)), replace=False)
        looks.append(look ^ sum(1 << int(bit) for bit in flips))
    photos = [Photo("train", f"{i}.jpg", bytes([i]), look) for i, look in enumerate(looks)]
    close = {
        (i, j)
        for j in range(len(looks))
        for i in range(j)
        if (looks[i] ^ looks[j]).bit_count() <= 8
    }
    assert 10 < len(close) < 35
    assert {tuple(g) for g in groups_of_copies(photos) if len(g) > 1} == close
