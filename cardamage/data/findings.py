"""What can be wrong with a COCO export: the kinds, how bad each is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning"]

MAX_EXAMPLES = 5

UNREADABLE = "unreadable source"
"""The kind whose one example is the whole message, since nothing more could be found out."""

_AGAIN = "export the dataset again"
_ERRORS = {
    UNREADABLE: ("the source cannot be read", "give a folder or a .zip of a COCO export"),
    "missing split": ("the folder is missing", "export with train/, valid/ and test/"),
    "missing annotations": ("the folder has no annotation file", _AGAIN),
    "broken annotations": ("the annotation file cannot be used", _AGAIN),
    "empty split": ("the split has no images", "export with images in each of its splits"),
    "malformed record": ("a record is not as COCO has it", "correct it or " + _AGAIN),
    "unsafe file name": ("a file_name does not stay inside its folder", "give a relative path"),
    "duplicate id": ("an id is given twice", "give each image and category an id of its own"),
    "duplicate file name": ("two images have the same file_name", "remove one of them"),
    "conflicting category": (
        "a category id has another name in another split",
        "export all splits together",
    ),
    "missing image": ("an annotation names an image that is not listed", "remove it or " + _AGAIN),
    "unknown category": (
        "an annotation names a category that is not listed",
        "add the category or " + _AGAIN,
    ),
    "missing file": ("an image is listed but its file is missing", "copy it there or " + _AGAIN),
    "impossible size": (
        "an image's width and height are not possible",
        "give positive whole pixels, 65,535 a side and 200 megapixels at most",
    ),
    "malformed segmentation": (
        "a segmentation is neither polygons nor RLE",
        "correct it or " + _AGAIN,
    ),
    "impossible coordinates": (
        "a polygon's coordinates are not possible",
        "give finite pixels, x and y in turn",
    ),
    "polygon outside": ("a polygon lies wholly outside its image", "correct or remove it"),
    "malformed RLE": ("an RLE mask does not fit its image", "correct it or " + _AGAIN),
    "broken image": ("an image cannot be decoded as annotated", ""),  # each example has a remedy
}
_WARNINGS = {
    "polygon partly outside": ("a polygon leaves its image", "the part outside is cut off"),
    "short polygon": ("a polygon has fewer than 3 points", "it is not painted"),
    "no segmentation": ("an annotation has no segmentation", "it is not painted"),
    "crowd": ("an annotation is a crowd (iscrowd)", "it is painted like any other"),
    "image without annotations": ("an image has no annotations", "it is all background"),
    "unlisted file": ("a file is not listed in the annotations", "it is ignored"),
    "unused category": ("a category is used by no annotation", "leave it out or drop it"),
    "unused root": ("a root category is used by no annotation", "it is left out by itself"),
    "overlap": ("pixels are covered by more than one annotation", "the later one counts there"),
    "same stem in splits": (
        "copies of one photo are in more than one split",
        "scores on them flatter; split by photo",
    ),
    "same content in splits": (
        "the same image is in more than one split",
        "scores on it flatter; remove it from all but one",
    ),
    "same content in a split": ("the same image is in the split twice", "remove one of them"),
    "too many categories": ("pixels are counted for 255 categories only", "group them in classes"),
}


@dataclass
class Finding:
    """One thing that is wrong with an export, or worth knowing, and how often it occurs.

    Attributes:
        kind: its name, such as ``missing file``.
        severity: an ``error`` keeps the export from being packed, a ``warning`` does not.
        split: where it was found; None where it concerns the whole export.
        count: how often it occurs.
        examples: the first few, each short.
    """

    kind: str
    severity: Severity
    split: str | None
    count: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        """One clear line: where, what, the first example, how many, what to do or what follows."""
        if self.kind == UNREADABLE:
            return self.examples[0]
        what, remedy = (_ERRORS if self.severity == "error" else _WARNINGS)[self.kind]
        where = f"{self.split}: " if self.split else ""
        first = f": {self.examples[0]}" if self.examples else ""
        total = f" ({self.count:,} in all)" if self.count > 1 else ""
        return (
            f"{where}{what}{first}{total}; {remedy}" if remedy else f"{where}{what}{total}{first}"
        )


class Findings:
    """Collects findings, one for each kind and split, in the order they first came up."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None], Finding] = {}

    def add(self, kind: str, split: str | None, example: str = "", *, count: int = 1) -> None:
        """Count one more of ``kind``; the first examples are kept."""
        severity: Severity = "error" if kind in _ERRORS else "warning"
        finding = self._found.setdefault((kind, split), Finding(kind, severity, split))
        finding.count += count
        if example and len(finding.examples) < MAX_EXAMPLES:
            finding.examples.append(example)

    def all(self) -> list[Finding]:
        """Every finding, errors first."""
        return sorted(self._found.values(), key=lambda finding: finding.severity != "error")
