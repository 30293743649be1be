"""Photos and their masks: names matched exactly, both kinds of mask read, every doubt refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardamage.errors import ConfigError, DataError
from cardamage.predict.photos import (
    MaskFile,
    Photo,
    count_frames,
    find_masks,
    find_photos,
    mask_classes,
    passed_over,
    read_photo,
    read_truth,
)

NAMES = ("background", "dent", "scratch")
PHOTO = Photo(Path("no such photo.jpg"), "no such photo")  # masks of its size need none
IDS = {"background": 0, "dent": 1, "scratch": 2}


def save(folder, name, pixels, mode=None):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(folder / name)
    return folder / name


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.fixture
def images(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def masks(tmp_path):
    return tmp_path / "masks"


def test_photos_are_the_image_files_by_name(images):
    touch(images, "b.JPG", "a b.png", "notes.txt", ".hidden.jpg", "x.jpg.rf.1.webp")
    (images / "folder.jpg").mkdir()
    photos = find_photos(images)
    assert [photo.path.name for photo in photos] == ["a b.png", "b.JPG", "x.jpg.rf.1.webp"]
    assert [photo.name for photo in photos] == ["a b", "b", "x.jpg.rf.1"]


def test_photos_that_share_a_stem_keep_their_endings(images):
    touch(images, "car.jpg", "car.png", "van.jpg")
    assert [photo.name for photo in find_photos(images)] == ["car.jpg", "car.png", "van"]


def test_a_file_name_that_is_anothers_stem_gets_no_twin(images):
    touch(images, "car.jpg", "car.png", "car.jpg.png")
    names = [photo.name for photo in find_photos(images)]
    assert sorted(names) == ["car.jpg", "car.jpg.png", "car.png"]


def test_a_missing_folder_is_refused(images):
    with pytest.raises(DataError, match="there is no such folder"):
        find_photos(images)


def test_a_folder_without_photos_is_refused(images):
    touch(images, "notes.txt")
    with pytest.raises(DataError, match=r"holds no images.*\.jpg"):
        find_photos(images)


def test_what_is_passed_over_is_named(images):
    touch(images, "a.jpg", "notes.txt", ".hidden")
    (images / "more").mkdir()
    assert passed_over(images) == ["more/", "notes.txt"]


@pytest.mark.parametrize("name", ["a.HEIC", "a.cr2", "a.avif"])
def test_photos_of_kinds_that_are_not_read_are_not_lost_without_a_word(images, name):
    touch(images, "b.jpg", name)
    with pytest.raises(DataError, match=r"1 images of a kind that is not read.*save them as JPEG"):
        find_photos(images)


@pytest.mark.parametrize("name", [b"a\nb.jpg", b"\xff.jpg", b"n" * 150 + b".jpg"])
def test_names_from_which_no_result_can_be_named_are_refused(images, name):
    images.mkdir()
    (images / os.fsdecode(name)).touch()
    with pytest.raises(DataError, match="no names of results can be made; rename it") as refused:
        find_photos(images)
    assert str(refused.value).isprintable()


def test_strokes_belong_to_the_exact_stem(images, masks):
    touch(images, "1.jpg", "10.jpg", "task-1.jpg")
    touch(
        masks,
        "task-10-annotation-3-by-1-tag-dent-0.png",
        "task-1-annotation-12-by-1-tag-dent-0.png",
        "task-1-annotation-9-by-me@home-tag-scratch-1.png",
        "task-1-annotation-9-by-1-tag-dent-0.png",
        "task-task-1-annotation-4-by-1-tag-dent-0.png",
    )
    found = find_masks(masks, find_photos(images), IDS)
    files = {name: [(m.path.name, m.class_id) for m in group] for name, group in found.items()}
    assert files == {
        "1": [  # by the annotation's number, then the stroke's
            ("task-1-annotation-9-by-1-tag-dent-0.png", 1),
            ("task-1-annotation-9-by-me@home-tag-scratch-1.png", 2),
            ("task-1-annotation-12-by-1-tag-dent-0.png", 1),
        ],
        "10": [("task-10-annotation-3-by-1-tag-dent-0.png", 1)],
        "task-1": [("task-task-1-annotation-4-by-1-tag-dent-0.png", 1)],
    }


def test_class_names_may_have_dashes_and_digits(images, masks):
    touch(images, "7.jpg")
    touch(masks, "task-7-annotation-1-by-1-tag-left-tag-door-2-0.png")
    found = find_masks(masks, find_photos(images), {"left-tag-door-2": 4})
    assert [mask.class_id for mask in found["7"]] == [4]


def test_masks_of_class_ids_go_by_the_stem(images, masks):
    touch(images, "a.jpg", "b.jpg", "c.png")
    touch(masks, "a.png", "c.PNG", "readme.md")
    found = find_masks(masks, find_photos(images), IDS)
    assert {name: group[0].class_id for name, group in found.items()} == {"a": None, "c": None}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cars.png", r'fits no image: there is none called "cars" \(did you mean "car"\?\)'),
        ("task-2-annotation-1-by-1-tag-dent-0.png", 'fits no image: there is none called "2"'),
        ("task-car-annotation-1-by-1-tag-rust-0.png", 'is of class "rust".*knows background, dent'),
        ("car.jpg", "a mask is a PNG"),
        ("two.png", r'two\.jpg and two\.webp share the stem "two"'),
    ],
)
def test_a_mask_that_cannot_be_placed_is_refused(images, masks, name, message):
    touch(images, "car.jpg", "two.jpg", "two.webp")
    touch(masks, name)
    with pytest.raises(DataError, match=message):
        find_masks(masks, find_photos(images), IDS)


def test_a_folder_without_masks_is_refused(images, masks):
    touch(images, "car.jpg")
    touch(masks, "notes.txt")
    with pytest.raises(DataError, match="holds no masks"):
        find_masks(masks, find_photos(images), IDS)


def test_both_kinds_of_mask_for_one_photo_are_refused(images, masks):
    touch(images, "car.jpg")
    touch(masks, "car.png", "task-car-annotation-1-by-1-tag-dent-0.png")
    with pytest.raises(DataError, match='image "car" has both'):
        find_masks(masks, find_photos(images), IDS)


def test_strokes_are_cut_at_128_and_painted_in_order(masks):
    dent = save(masks, "dent.png", [[0, 127, 128, 255], [255, 255, 0, 0]])
    scratch = save(masks, "scratch.png", [[0, 0, 0, 200], [100, 0, 0, 128]])
    truth = read_truth(PHOTO, [MaskFile(dent, 1), MaskFile(scratch, 2)], (4, 2), NAMES)
    assert truth.mask.tolist() == [[0, 0, 1, 2], [1, 1, 0, 2]]
    assert truth.overlapped_pixels == 1


@pytest.mark.parametrize("as_seen", [True, False])
def test_a_mask_is_turned_with_its_photo(images, masks, as_seen):
    """A phone's photo of 3x2 pixels, shown 2x3; its mask is drawn as seen, or as stored."""
    images.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right: what is stored at the upper left is seen upper right
    stored = np.zeros((2, 3), np.uint8)
    stored[0, 0] = 1
    Image.fromarray(np.stack([stored * 255] * 3, axis=-1)).save(images / "p.png", exif=exif)
    photo = Photo(images / "p.png", "p")
    seen = np.asarray(read_photo(photo))[..., 0] // 255
    assert seen.tolist() == [[0, 1], [0, 0], [0, 0]]
    path = save(masks, "p.png", seen if as_seen else stored)
    truth = read_truth(photo, [MaskFile(path, None)], (2, 3), NAMES)
    assert truth.mask.tolist() == seen.tolist()


def test_frames_are_counted(images):
    images.mkdir()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(images / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(images / "a.png")
    assert count_frames(Photo(images / "a.gif", "a")) == 3
    assert count_frames(Photo(images / "a.png", "a")) == 1


def test_strokes_of_one_class_may_meet(masks):
    path = save(masks, "dent.png", [[255, 0]])
    truth = read_truth(PHOTO, [MaskFile(path, 1), MaskFile(path, 1)], (2, 1), NAMES)
    assert (truth.mask.tolist(), truth.overlapped_pixels) == ([[1, 0]], 0)


def test_a_background_stroke_takes_away_and_counts_as_overlap(masks):
    path = save(masks, "x.png", [[255, 0]])
    truth = read_truth(PHOTO, [MaskFile(path, 1), MaskFile(path, 0)], (2, 1), NAMES)
    assert (truth.mask.tolist(), truth.overlapped_pixels) == ([[0, 0]], 1)


def test_class_ids_are_taken_as_they_are(masks):
    path = save(masks, "car.png", [[0, 1], [2, 1]])
    assert read_truth(PHOTO, [MaskFile(path, None)], (2, 2), NAMES).mask.tolist() == [
        [0, 1],
        [2, 1],
    ]


def test_class_ids_of_a_palette_are_its_indices(masks):
    masks.mkdir()
    image = Image.fromarray(np.array([[0, 2]], np.uint8))
    image.putpalette([0, 0, 0, 9, 9, 9, 200, 100, 0])
    image.save(masks / "car.png")
    assert read_truth(PHOTO, [MaskFile(masks / "car.png", None)], (2, 1), NAMES).mask.tolist() == [
        [0, 2]
    ]


def test_an_id_that_is_no_class_is_refused(masks):
    path = save(masks, "car.png", [[0, 255]])
    with pytest.raises(
        DataError, match="class id 255; the ids of this run are 0 background, 1 dent, 2 scratch"
    ):
        read_truth(PHOTO, [MaskFile(path, None)], (2, 1), NAMES)


def test_a_mask_of_another_size_is_refused(masks):
    path = save(masks, "car.png", [[0, 1]])
    photo = Photo(save(masks, "photo.png", np.zeros((4, 4))), "photo")
    with pytest.raises(DataError, match="has 2x1 pixels and its image 4x4"):
        read_truth(photo, [MaskFile(path, None)], (4, 4), NAMES)


def test_a_coloured_mask_of_class_ids_is_refused(masks):
    path = save(masks, "car.png", [[[0, 0, 1]]])
    with pytest.raises(DataError, match="no mask of class ids: its pixels are RGB"):
        read_truth(PHOTO, [MaskFile(path, None)], (1, 1), NAMES)


@pytest.mark.parametrize("kept", [0, 20, 60])
def test_a_broken_mask_is_refused(masks, kept):
    path = save(masks, "car.png", np.arange(64 * 64).reshape(64, 64) % 3)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_truth(PHOTO, [MaskFile(path, None)], (64, 64), NAMES)


def test_strokes_may_carry_the_names_of_categories_and_of_classes():
    ids = mask_classes({"damage": ["scratch", "dent"], "glass": ["shatter"]}, ["dirt"])
    assert ids == {
        "background": 0,
        "dirt": 0,
        "damage": 1,
        "scratch": 1,
        "dent": 1,
        "glass": 2,
        "shatter": 2,
    }


def test_further_names_stand_for_known_ones():
    ids = mask_classes({"damage": ["dent"]}, class_map=["Severe=dent", "None=background"])
    assert (ids["Severe"], ids["None"]) == (1, 0)


def test_a_further_name_for_no_class_is_refused():
    with pytest.raises(ConfigError, match='no class "rust"; it has background, damage'):
        mask_classes({"damage": ["dent"]}, class_map=["Severe=rust"])
