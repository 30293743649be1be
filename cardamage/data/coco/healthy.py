"""The folder of photos without damage beside a dataset whose photos all have some."""

from collections.abc import Iterator
from pathlib import Path

from cardamage.data.coco.layout import IMAGE_ENDINGS
from cardamage.errors import DataError

SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}
"""Of the photos, for each split that the dataset has; copies of a photo stay together."""


def healthy_files(folder: Path) -> list[Path]:
    """The photos of a folder, those in folders inside it too, in the order of their names.

    Raises:
        DataError: it is no folder, or holds fewer photos than there are splits.
    """
    if not folder.is_dir():
        raise DataError(f"data.healthy: {folder} is no folder; name one of photos without damage")
    found = sorted(path for path in _walk(folder) if path.suffix.lower() in IMAGE_ENDINGS)
    if len(found) < len(SHARES):
        raise DataError(
            f"data.healthy: {folder} holds {len(found)} photos ({', '.join(IMAGE_ENDINGS)}); "
            f"give {len(SHARES)} or more, so that each split has one"
        )
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path
