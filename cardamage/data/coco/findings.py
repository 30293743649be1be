"""What can be wrong with a COCO export: the kinds, how bad each is, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from cardamage.data.coco.names import STEPS

Severity = Literal["error", "warning", "note"]
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")

MAX_EXAMPLES = 5
"""Shown of each finding."""

_MAX_FOUND = 10_000  # kept of each finding

UNREADABLE = "unreadable source"
"""The kind whose one example is the whole message, since nothing more could be found out."""

_AGAIN = "export the dataset again"
_DELETE = "to leave it out, delete its file and set data.skip_broken: true"
_WEIGHS = f"it weighs more in training; {_DELETE}"
_ERRORS = {
    UNREADABLE: ("the source cannot be read", "give a folder or a .zip of a COCO export"),
    "missing split": ("a split is missing", ""),  # each example has a remedy
    "missing annotations": ("the folder has no annotation file", _AGAIN),
    "broken annotations": ("the annotation file cannot be used", _AGAIN),
    "empty split": ("the split has no images", "export with images in each of its splits"),
    "malformed record": ("a record is not as COCO has it", "correct it or " + _AGAIN),
    "unsafe file name": (
        "a file_name fits no file, and does not stay inside its folder",
        "copy the image there, or give a relative path",
    ),
    "duplicate id": ("an id is given twice", "give each image and category an id of its own"),
    "duplicate file name": ("two images have the same file_name", "remove one of them"),
    "missing image": ("an annotation names an image that is not listed", "remove it or " + _AGAIN),
    "unknown category": (
        "an annotation names a category that is not listed",
        "add the category or " + _AGAIN,
    ),
    "missing file": (
        "an image is listed but its file is missing",
        "copy it there, or leave it out with data.skip_broken: true",
    ),
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
    "normalised coordinates": (
        "coordinates lie from 0 to 1 instead of in pixels",
        "multiply x by the image's width and y by its height, or export in pixels",
    ),
    "boxes only": ("outlines are missing", ""),  # the example has a remedy
    "nothing painted": (
        "no pixel of the split's masks is of a class",
        "nothing can be learned or scored there: the other findings say what is lost",
    ),
    "malformed RLE": ("an RLE mask does not fit its image", "correct it or " + _AGAIN),
    "size mismatch": (
        "an image has another size than its annotations say",
        "put back the image they were drawn on, or " + _AGAIN,
    ),
    "broken image": ("an image cannot be read", ""),  # each example has a remedy
}
_WARNINGS = {
    "polygon partly outside": ("a polygon leaves its image", "the part outside is cut off"),
    "polygon outside": ("a polygon lies wholly outside its image", "it paints nothing"),
    "box without outline": (
        "an annotation has a box and no outline",
        "data.boxes says what becomes of it; refuse, the default, leaves a few as background",
    ),
    "too thin": (
        "annotations keep no pixel at the size that is packed",
        "raise data.image_size, or what they show is trained on as background",
    ),
    "hidden": (
        "annotations lie wholly under those of other classes painted later",
        (
            "data.paint_order: large_first paints the smaller ones last; what is hidden even so "
            "lies under smaller ones"
        ),
    ),
    "short polygon": ("a polygon has fewer than 3 points", "it is not painted"),
    "no segmentation": ("an annotation has no segmentation", "it is not painted"),
    "no area": ("an annotation covers no pixel", "it is as if it were not there"),
    "crowd": ("an annotation is a crowd (iscrowd)", "it is painted like any other"),
    "record given twice": ("an image is listed twice, with equal records", "it is taken once"),
    "duplicate annotation": ("an annotation is there twice", "remove one of them"),
    "duplicate annotation id": ("two annotations have the same id", "both are painted"),
    "unlisted file": ("a file is not listed in the annotations", "it is ignored"),
    "unused category": ("a category is used by no annotation", "name it under data.drop"),
    "category not listed": (
        "a category of another split is not listed here",
        "no image here shows it; export all splits together",
    ),
    "category without examples": (
        "no image shows a category that another split has",
        "it cannot be learned or scored here; split again with cardamage split",
    ),
    "other number of images": (
        "the export does not have as many images as it says",
        "download or export it again",
    ),
    "tiny image": ("an image is under 16 pixels high or wide", f"it shows little; {_DELETE}"),
    "EXIF orientation": (
        "an image is stored turned or mirrored, as its EXIF orientation says",
        "it is put upright unless only the stored size fits; see cardamage preview",
    ),
    "same stem in splits": (
        "copies of one photo are in more than one split",
        "scores on them flatter; split by photo with cardamage split",
    ),
    "same content in splits": (
        "the same image is in more than one split",
        "scores on it flatter; split again with cardamage split, which keeps copies together",
    ),
    "same content in a split": ("the same image is in the split twice", _WEIGHS),
    "same look in splits": (
        "images that look the same are in more than one split",
        "scores on them flatter; split again with cardamage split, which keeps copies together",
    ),
    "same look in a split": ("images of the split look the same", _WEIGHS),
    "too many categories": ("pixels are counted for 255 categories only", "group them in classes"),
}
_NOTES = {
    "layout": (
        "the annotation file was found by what it holds",
        "data.annotations names another",
    ),
    "no test split": ("there is no test split", "checkpoints are tested on valid"),
    "unused folder": ("images that no annotation file is about", "they are not used"),
    "unused annotations": ("another annotation file is there", "it was not chosen"),
    "other category ids": (
        "a category has another id than in the other splits",
        "categories go by name",
    ),
    "category name": (
        "a category's name has blanks around it or accents of their own",
        "it is read without",
    ),
    **{
        f"file name: {step}": ("a file_name is not spelled as its file is", "the file was found")
        for step in STEPS
    },
    "unused root": ("a root category is used by no annotation", "it is left out by itself"),
    "image without annotations": ("an image has no annotations", "it is all background"),
    "overlap": ("pixels are covered by more than one annotation", "the later one counts there"),
    "left out": ("images are left out of what is packed", "as data.boxes: drop_image asks for"),
    "RLE mask": ("an annotation is an RLE mask instead of polygons", "it is painted as well"),
    "same stem in a split": (
        "the split holds several copies of one photo",
        "as Roboflow's augmentation makes them",
    ),
}
SKIPPED = frozenset(
    {
        *("missing file", "broken image", "size mismatch", "impossible size", "unsafe file name"),
        *("malformed record", "missing image", "unknown category"),
        *("malformed segmentation", "impossible coordinates", "malformed RLE"),
    }
)
"""The kinds of error that concern one image, which ``data.skip_broken`` leaves out."""

_KINDS: dict[Severity, dict[str, tuple[str, str]]] = {
    "error": _ERRORS,
    "warning": _WARNINGS,
    "note": _NOTES,
}


_ALL = {kind: words for kinds in _KINDS.values() for kind, words in kinds.items()}


@dataclass
class Finding:
    """One thing that is wrong with an export, or worth knowing, and how often it occurs.

    Attributes:
        kind: its name, such as ``missing file``.
        severity: an ``error`` keeps the export from being packed; a ``warning`` does not, but
            something is not as it should be; a ``note`` tells what is usual and taken care of. An
            error that is skipped is a warning.
        split: where it was found; None where it concerns the whole export.
        found: every example, each short, up to some thousands.
    """

    kind: str
    severity: Severity
    split: str | None
    count: int = 0
    found: list[str] = field(default_factory=list)

    @property
    def examples(self) -> list[str]:
        """The first few."""
        return self.found[:MAX_EXAMPLES]

    @property
    def words(self) -> tuple[str, str]:
        """What it is, and what to do or what follows; the latter empty where each example says."""
        what, remedy = _ALL[self.kind]
        if self.kind in SKIPPED and self.severity == "warning":
            remedy = "the image is left out"
        return what, remedy

    @property
    def message(self) -> str:
        """One clear line: where, what, the first example, how many, what to do or what follows."""
        if self.kind == UNREADABLE:
            return self.examples[0]
        what, remedy = self.words
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
        """Count one more of ``kind``, or ``count`` more with one example."""
        severity = next(severity for severity in _ORDER if kind in _KINDS[severity])
        finding = self._found.setdefault((kind, split), Finding(kind, severity, split))
        finding.count += count
        if example and len(finding.found) < _MAX_FOUND:
            finding.found.append(example)

    def all(self) -> list[Finding]:
        """Every finding, errors first and notes last."""
        return by_severity(self._found.values())


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes, each in the order given."""
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def skipping(findings: Iterable[Finding]) -> list[Finding]:
    """The same where images that cannot be used are left out: their errors are warnings."""
    return by_severity(
        replace(finding, severity="warning")
        if finding.kind in SKIPPED and finding.severity == "error"
        else finding
        for finding in findings
    )
