"""A first experiment file for a dataset: its classes filled in, a recipe that fits the machine."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from cardamage.config.shipped import RECIPES
from cardamage.data.coco.categories import unused_roots
from cardamage.data.coco.records import Export
from cardamage.errors import counted
from cardamage.labels import BACKGROUND

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*( [A-Za-z0-9_-]+)*")
_NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"}


def first_config(
    export: Export,
    source: str,
    *,
    name: str,
    schema: str,
    gpu: bool,
    annotations: Mapping[str, str] | None = None,
) -> str:
    """The text of an experiment file.

    Args:
        annotations: annotation files by split, where several could be meant.
        gpu: whether this machine has a GPU, which settles the recipe.

    Returns:
        YAML that is valid as it stands.
    """
    roots = {category.id for category in unused_roots(export.categories, export.used_categories())}
    instances: Counter[int] = Counter()
    shown: Counter[int] = Counter()
    for split in export.splits.values():
        for image in split.images:
            ids = [annotation.category_id for annotation in image.annotations]
            instances.update(ids)
            shown.update(set(ids))
    lines: dict[str, str] = {}
    for category in export.categories:
        if category.id not in roots and category.name != BACKGROUND:
            number = f"{instances[category.id]:,} annotations on {shown[category.id]:,} images"
            (line,) = class_lines([category.name])[1:]
            lines.setdefault(category.name, f"{line}  # {number}")
    drops = [c.name for c in export.categories if c.name == BACKGROUND and c.id not in roots]
    images = {split: len(found.images) for split, found in export.splits.items()}
    broken = sum(len(found.broken) for found in export.splits.values())
    told = f"leaves out {counted(broken, 'image')} that cannot be used; see cardamage audit"
    sizes = ", ".join(f"{number:,} {split}" for split, number in images.items())
    trained_on = images.get("train", 16)
    if _splits(images):  # a part of them, and groups of copies stay together
        trained_on //= 2
    recipe = "damage_gpu" if gpu else "kinds" if len(lines) > 1 else "damage_cpu"
    size, training = _of_recipe(recipe, max(1, trained_on))
    return "\n".join(
        [
            f"# yaml-language-server: $schema={schema}",
            "#",
            f"# Written by `cardamage init`, for {sizes} images.",
            f"# Next: cardamage submit {name} --dry-run; cardamage submit {name}",
            f"name: {name}",
            "data:",
            f"  source: {_scalar(source)}",
            *([f"  annotations: {json.dumps(annotations)}"] if annotations else []),
            *([f"  skip_broken: true  # {told}"] if broken else []),
            *_splits(images),
            "  classes:  # ids 1, 2, ... in this order; 0 is background",
            *lines.values(),
            *([f"  drop: {json.dumps(drops)}"] if drops else []),
            f"{size}  # height, width; larger shows thinner damages",
            f"# From here on as in the recipe {recipe}, which comes with cardamage.",
            training,
        ]
    )


def _of_recipe(name: str, most_images: int) -> tuple[str, str]:
    """A recipe's line of the image size, and its text behind the dataset, for so small a split."""
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    data, training = text.split("\nmodel:")
    (size,) = (line for line in data.splitlines() if line.startswith("  image_size:"))

    def fitting(found: re.Match[str]) -> str:
        return f"batch_size: {min(int(found[1]), most_images)}"

    return size, "model:" + re.sub(r"batch_size: (\d+)", fitting, training)


def class_lines(names: Iterable[str]) -> list[str]:
    """The lines of ``classes:`` in the section ``data`` of an experiment file."""
    return ["  classes:", *(f"    - {_scalar(name)}" for name in names)]


def _splits(images: Collection[str]) -> list[str]:
    """How the splits that are missing come about; without test, valid is tested on."""
    if "train" in images and "valid" in images:
        return []
    if "train" in images and "test" in images:
        return ["  valid_share: 0.15  # of train, by photo: the dataset has no valid split"]
    return ["  split: {shares: [0.7, 0.15, 0.15], seed: 0}  # of train, valid and test, by photo"]


def name_from(source: Path) -> str:
    """The name of an experiment for a dataset: its file's or folder's, as far as names allow."""
    stem = source.resolve().stem if source.suffix == ".zip" else source.resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "first"


def _scalar(text: str) -> str:
    """A text as YAML, in quotes where it would be read as something else without."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    return json.dumps(text, ensure_ascii=False)
