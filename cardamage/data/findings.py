"""What can be wrong with a COCO export: the kinds, how bad each is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")

MAX_EXAMPLES = 5

UNREADABLE = "unreadable source"
"""The kind whose one example is the whole message, since nothing more could be found out."""

_AGAIN = "export the dataset again"
_ERRORS = {
    UNREADABLE: ("the source cannot be read", "give a folder or a .zip of a COCO export"),
    "missing split": (
        "the folder is missing",
        "export with train/, valid/ and test/, or split the export with jobs/split.py",
    ),
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
    "size mismatch": (
        "an image has another size than its annotations say",
        "put back the image they were drawn on, or " + _AGAIN,
    ),
    "broken image": ("an image cannot be read", ""),  # each example has a remedy
}
_WARNINGS = {
    "polygon partly outside": ("a polygon leaves its image", "the part outside is cut off"),
    "short polygon": ("a polygon has fewer than 3 points", "it is not painted"),
    "no segmentation": ("an annotation has no segmentation", "it is not painted"),
    "no area": ("an annotation covers no pixel", "it is as if it were not there"),
    "crowd": ("an annotation is a crowd (iscrowd)", "it is painted like any other"),
    "duplicate annotation": ("an annotation is there twice", "remove one of them"),
    "duplicate annotation id": ("two annotations have the same id", "both are painted"),
    "unlisted file": ("a file is not listed in the annotations", "it is ignored"),
    "unused category": ("a category is used by no annotation", "leave it out or drop it"),
    "category not listed": (
        "a category of another split is not listed here",
        "no image here shows it; export all splits together",
    ),
    "category without examples": (
        "no image shows a category that another split has",
        "it cannot be learned or scored here; split anew with jobs/split.py",
    ),
    "other number of images": (
        "the export does not have as many images as it says",
        "download or export it again",
    ),
    "tiny image": ("an image is under 16 pixels high or wide", "it shows little; leave it out"),
    "EXIF orientation": (
        "an image is stored turned or mirrored, as its EXIF orientation says",
        "it is put upright unless only the stored size fits; see jobs/preview.py",
    ),
    "same stem in splits": (
        "copies of one photo are in more than one split",
        "scores on them flatter; split by photo with jobs/split.py",
    ),
    "same content in splits": (
        "the same image is in more than one split",
        "scores on it flatter; remove it from all but one, or split anew with jobs/split.py",
    ),
    "same content in a split": ("the same image is in the split twice", "remove one of them"),
    "same look in splits": (
        "images that look the same are in more than one split",
        "scores on them flatter; remove them from all but one, or split anew with jobs/split.py",
    ),
    "same look in a split": ("images of the split look the same", "keep one of them"),
    "too many categories": ("pixels are counted for 255 categories only", "group them in classes"),
}
_NOTES = {
    "unused root": ("a root category is used by no annotation", "it is left out by itself"),
    "image without annotations": ("an image has no annotations", "it is all background"),
    "overlap": ("pixels are covered by more than one annotation", "the later one counts there"),
    "RLE mask": ("an annotation is an RLE mask instead of polygons", "it is painted as well"),
    "same stem in a split": (
        "the split holds several copies of one photo",
        "as Roboflow's augmentation makes them",
    ),
}
_KINDS: dict[Severity, dict[str, tuple[str, str]]] = {
    "error": _ERRORS,
    "warning": _WARNINGS,
    "note": _NOTES,
}


@dataclass
class Finding:
    """One thing that is wrong with an export, or worth knowing, and how often it occurs.

    Attributes:
        kind: its name, such as ``missing file``.
        severity: an ``error`` keeps the export from being packed; a ``warning`` does not, but
            something is not as it should be; a ``note`` tells what is usual and taken care of.
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
        what, remedy = _KINDS[self.severity][self.kind]
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
        severity = next(severity for severity in _ORDER if kind in _KINDS[severity])
        finding = self._found.setdefault((kind, split), Finding(kind, severity, split))
        finding.count += count
        if example and len(finding.examples) < MAX_EXAMPLES:
            finding.examples.append(example)

    def all(self) -> list[Finding]:
        """Every finding, errors first and notes last."""
        return by_severity(self._found.values())


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes, each in the order given."""
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
