"""Class names, ids and colours, and how a dataset's categories become classes.

Id 0 is the background; the classes of the config follow as 1, 2, ... in their order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cardamage.errors import DataError, did_you_mean

BACKGROUND = "background"
MAX_CLASSES = 255
"""Ids are stored in 8-bit grey PNGs, and 0 is the background."""

# The first six are Paul Tol's "bright" scheme. Each of the others was chosen to differ most from
# all before it, in CIELAB, with normal sight and with simulated protanopia and deuteranopia alike.
_COLOURS = (
    (0, 0, 0),
    (238, 102, 119),
    (68, 119, 170),
    (204, 187, 68),
    (34, 136, 51),
    (102, 204, 238),
    (170, 51, 119),
    (68, 0, 255),
    (119, 255, 0),
    (153, 119, 255),
    (0, 255, 204),
    (221, 0, 0),
    (119, 68, 51),
    (255, 0, 187),
    (221, 119, 0),
    (255, 187, 153),
    (153, 238, 119),
    (170, 0, 204),
    (221, 153, 187),
    (0, 170, 153),
    (85, 68, 153),
    (187, 170, 255),
    (0, 68, 238),
    (119, 136, 85),
    (136, 102, 17),
)


@dataclass(frozen=True)
class Category:
    """A category of a COCO export."""

    id: int
    name: str
    supercategory: str = "none"


def colour(class_id: int) -> tuple[int, int, int]:
    """RGB, 0..255, of a class id; ids beyond the table get evenly turned hues."""
    if class_id < len(_COLOURS):
        return _COLOURS[class_id]
    turned = (class_id * 97) % 360
    sector, rest = divmod(turned, 60)
    rising = 40 + rest * 3
    falling = 220 - rest * 3
    return (
        (220, rising, 40),
        (falling, 220, 40),
        (40, 220, rising),
        (40, falling, 220),
        (rising, 40, 220),
        (220, 40, falling),
    )[sector]


def unused_roots(categories: Sequence[Category], used: Collection[int]) -> list[Category]:
    """Roots of the category tree that no annotation uses, such as Roboflow's id 0.

    A root is a category that is some other category's ``supercategory``.

    Args:
        categories: all categories of the export.
        used: the category ids that occur in the annotations of any split.
    """
    parents = {category.supercategory for category in categories if category.supercategory}
    return [c for c in categories if c.name in parents and c.id not in used]


def map_categories(
    categories: Sequence[Category],
    used: Collection[int],
    classes: Mapping[str, Sequence[str]],
    drop: Sequence[str] = (),
) -> dict[int, int]:
    """Class id of each category id; a category left as background maps to 0.

    Args:
        categories: the categories of the export.
        used: the category ids that occur in annotations.
        classes: category names of each class, in the order of the class ids.
        drop: category names that stay background.

    Raises:
        DataError: a class names a category that the dataset lacks, or the dataset has a category
            that no class and no ``drop`` names (an unused root apart).
    """
    names = sorted({category.name for category in categories})
    class_of = {name: i for i, group in enumerate(classes.values(), start=1) for name in group}
    for name in (*class_of, *drop):
        if name not in names:
            key = "data.drop" if name in drop else "data.classes"
            hint = did_you_mean(name, names)
            raise DataError(
                f'{key} names "{name}", which the dataset does not have{hint}; '
                f"its categories are: {', '.join(names)}"
            )
    roots = {category.id for category in unused_roots(categories, used)}
    mapping = {}
    for category in categories:
        if category.name in class_of:
            mapping[category.id] = class_of[category.name]
        elif category.name in drop or category.id in roots:
            mapping[category.id] = 0
        else:
            raise DataError(
                f'the dataset has a category "{category.name}" that data.classes does not name; '
                f"add it to a class, or list it under data.drop to leave it as background"
            )
    return mapping
