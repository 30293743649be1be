"""An export's categories, and the classes they become."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cardamage.data.coco.names import composed
from cardamage.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Category:
    """A category of a COCO export."""

    id: int
    name: str
    supercategory: str = "none"


def category_name(written: str) -> str:
    """A name without blanks around it, and with accents as most programs write them."""
    return composed(written.strip())


def common_ids(splits: Mapping[str, Sequence[Category]]) -> dict[str, dict[int, int]]:
    """For each split, what each of its category ids becomes, so that ids mean one name throughout.

    They stay as they are unless an id has one name in one split and another in the next. Of
    categories of one name in a split, the first goes with the first of another, and so on.
    """
    names: dict[int, str] = {}
    every = [category for categories in splits.values() for category in categories]
    if all(names.setdefault(category.id, category.name) == category.name for category in every):
        return {split: {c.id: c.id for c in categories} for split, categories in splits.items()}
    ids: dict[tuple[str, int], int] = {}
    common: dict[str, dict[int, int]] = {}
    free = max(names) + 1
    for split, categories in splits.items():
        seen: Counter[str] = Counter()
        common[split] = {}
        for category in categories:
            key = category.name, seen[category.name]
            seen[category.name] += 1
            if key not in ids and category.id in ids.values():
                ids[key], free = free, free + 1
            common[split][category.id] = ids.setdefault(key, category.id)
    return common


def unused_roots(categories: Sequence[Category], used: Collection[int]) -> list[Category]:
    """Roots of the category tree that no annotation uses, such as Roboflow's id 0.

    A root is a category that is some other category's ``supercategory``.

    Args:
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
        classes: category names of each class, in the order of the class ids.

    Raises:
        DataError: a class names a category that the dataset lacks, or the dataset has a category
            that no class and no ``drop`` names (an unused root apart).
    """
    names = sorted({category.name for category in categories})
    class_of = {
        category_name(name): class_id
        for class_id, group in enumerate(classes.values(), start=1)
        for name in group
    }
    drop = [category_name(name) for name in drop]
    for name in (*class_of, *drop):
        if name not in names:
            key = "data.drop" if name in drop else "data.classes"
            hint = did_you_mean(name, names)
            raise DataError(
                f'{key} names "{name}", which the dataset does not have{hint}; '
                f"its categories are: {', '.join(names)}"
            )
    roots = {category.id for category in unused_roots(categories, used)}
    mapping: dict[int, int] = {}
    unnamed: list[str] = []
    for category in categories:
        if category.name in class_of:
            mapping[category.id] = class_of[category.name]
        elif category.name in drop or category.id in roots:
            mapping[category.id] = 0
        else:
            unnamed.append(category.name)
    if unnamed:
        listed = json.dumps(list(dict.fromkeys(unnamed)), ensure_ascii=False)
        raise DataError(
            f"the dataset has categories that neither data.classes nor data.drop names: {listed}; "
            f"add them to data.classes, or write under data: drop: {listed} to leave them as "
            f"background"
        )
    return mapping
