"""How a dataset's categories become classes."""

import numpy as np
import pytest

from cardamage.data.coco.categories import Category, map_categories, unused_roots
from cardamage.errors import DataError
from cardamage.labels import MAX_CLASSES, colour

ROBOFLOW = (
    Category(0, "car-damage", "none"),
    Category(1, "scratch", "car-damage"),
    Category(2, "dent", "car-damage"),
    Category(3, "broken lamp", "car-damage"),
)
USED = {1, 2, 3}


def test_unused_root_is_found():
    assert unused_roots(ROBOFLOW, USED) == [ROBOFLOW[0]]


def test_root_with_annotations_is_a_category_like_any_other():
    assert unused_roots(ROBOFLOW, {0, *USED}) == []
    with pytest.raises(DataError, match=r'data\.drop names: \["car-damage"\]'):
        map_categories(ROBOFLOW, {0, *USED}, {"damage": ["scratch", "dent", "broken lamp"]})


def test_unused_category_that_is_no_root_has_to_be_named():
    assert unused_roots(ROBOFLOW, {1, 2}) == [ROBOFLOW[0]]
    with pytest.raises(DataError, match=r'data\.drop names: \["broken lamp"\]'):
        map_categories(ROBOFLOW, {1, 2}, {"scratch": ["scratch"], "dent": ["dent"]})


def test_ids_follow_the_order_of_the_classes_not_of_the_categories():
    classes = {"lamp": ["broken lamp"], "dent": ["dent"], "scratch": ["scratch"]}
    assert map_categories(ROBOFLOW, USED, classes) == {0: 0, 1: 3, 2: 2, 3: 1}


def test_grouped_and_dropped_categories():
    mapping = map_categories(ROBOFLOW, USED, {"surface": ["dent", "scratch"]}, drop=["broken lamp"])
    assert mapping == {0: 0, 1: 1, 2: 1, 3: 0}


def test_root_can_be_a_class_when_the_config_names_it():
    classes = {"any": ["car-damage"], "rest": ["scratch", "dent", "broken lamp"]}
    assert map_categories(ROBOFLOW, {0, *USED}, classes) == {0: 1, 1: 2, 2: 2, 3: 2}


def test_two_categories_of_one_name_share_the_class():
    categories = (Category(0, "damage", "none"), Category(1, "damage", "damage"))
    assert map_categories(categories, {1}, {"damage": ["damage"]}) == {0: 1, 1: 1}


def test_class_the_dataset_lacks_names_the_nearest():
    with pytest.raises(DataError) as caught:
        map_categories(ROBOFLOW, USED, {"scratch": ["scrach"], "rest": ["dent", "broken lamp"]})
    assert str(caught.value) == (
        'data.classes names "scrach", which the dataset does not have (did you mean "scratch"?); '
        "its categories are: broken lamp, car-damage, dent, scratch"
    )


def test_class_unlike_any_category_lists_them():
    with pytest.raises(DataError) as caught:
        map_categories(ROBOFLOW, USED, {"x": ["zzz"]})
    assert str(caught.value) == (
        'data.classes names "zzz", which the dataset does not have; '
        "its categories are: broken lamp, car-damage, dent, scratch"
    )


def test_dropped_category_the_dataset_lacks():
    classes = {name: [name] for name in ("scratch", "dent", "broken lamp")}
    with pytest.raises(DataError, match=r'^data\.drop names "rust"'):
        map_categories(ROBOFLOW, USED, classes, drop=["rust"])


def test_colours_are_rgb_and_the_first_hundred_differ():
    colours = [colour(class_id) for class_id in range(MAX_CLASSES + 1)]
    assert colours[0] == (0, 0, 0)
    assert all(0 <= channel <= 255 for rgb in colours for channel in rgb)
    assert len(set(colours[:100])) == 100


def test_colours_of_the_first_classes_are_far_apart():
    colours = np.array([colour(class_id) for class_id in range(12)], dtype=float)
    apart = np.linalg.norm(colours[:, None] - colours, axis=2) + np.diag(np.full(12, np.inf))
    assert apart.min() > 75
