"""What tells packed datasets apart: a hash of what is packed and how, and a name for folders."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cardamage.data.coco.source import ImageSource
from cardamage.data.shards.manifest import VERSION

RASTERISER = f"pycocotools {version('pycocotools')}"
"""What paints the masks; other versions might paint otherwise."""

_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')  # twice as fast as all of JSON


def fingerprint(source: ImageSource, options: Mapping[str, Any]) -> str:
    """Hex SHA-256 of what is packed and how.

    That is each split's annotation file, the name and size of each image it lists, the options, the
    rasteriser and the version of the layout. Where the export lies is no part of it, nor are other
    files, nor is the version of Pillow, whose JPEGs may differ in the last bit.
    """
    content = {
        "version": VERSION,
        "rasteriser": RASTERISER,
        # The order of the classes counts, and JSON objects have none.
        "options": {**options, "classes": list(options["classes"].items())},
        "splits": {split: _fingerprint_split(source, split) for split in source.splits()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def dataset_name(source: Path) -> str:
    """The dataset's name for folders: of the source's own name, what is safe everywhere."""
    path = source.resolve()
    name = path.stem if path.is_file() else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "dataset"


def digest_of_files(paths: Sequence[Path], folder: Path) -> str:
    """Hex SHA-256 of the names, as seen from a folder, and the sizes of files in it."""
    listed = [[path.relative_to(folder).as_posix(), path.stat().st_size] for path in paths]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _fingerprint_split(source: ImageSource, split: str) -> dict[str, str]:
    text = source.annotations(split)
    names: list[str] = []
    with suppress(ValueError):  # reading it tells why
        names = [json.loads(name) for name in _FILE_NAME.findall(text)]
    files = hashlib.sha256()
    for name in sorted(set(source.match(split, names).files.values())):
        files.update(json.dumps([name, source.size(split, name)]).encode())
    return {"annotations": hashlib.sha256(text).hexdigest(), "files": files.hexdigest()}
