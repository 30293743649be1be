"""Whether an export has the splits that training needs, and what was found of them."""

import shlex
from collections.abc import Collection

from cardamage.data.coco.findings import Findings
from cardamage.data.coco.layout import ANNOTATIONS
from cardamage.data.coco.source import ImageSource
from cardamage.errors import DataError
from cardamage.runs.paths import SPLITS


def check_layout(files: ImageSource, findings: Findings, may_lack: Collection[str]) -> None:
    """Add what the layout of an export tells.

    Args:
        may_lack: the splits that need not be there.

    Raises:
        DataError: there is no telling what it consists of.
    """
    layout = files.layout
    there = {part.split: part for part in layout.parts}
    bare = dict(layout.bare)
    missing = {*SPLITS} - {*there} - {*bare}
    found = " and ".join(part.annotations for part in layout.parts)
    if {"valid", "test"} <= missing and "valid" not in may_lack:
        findings.add(
            "missing split",
            None,
            f"found {found}, which is one set of images; add split: {{shares: [0.7, 0.15, 0.15]}} "
            f"under data: in the experiment file, or split it with "
            f"`cardamage split {shlex.quote(str(files.source))} OUT`",
        )
    elif "train" in missing and "train" not in may_lack:
        findings.add(
            "missing split",
            None,
            f"found {found}, and nothing for train; name its annotation file under data: in the "
            f"experiment file, as in annotations: {{train: FILE}}",
        )
    elif "valid" in missing and "valid" not in may_lack:
        findings.add(
            "missing split",
            None,
            f"found {found}, and nothing for valid; add valid_share: 0.15 under data: in the "
            f"experiment file, which takes it out of train, or split it with "
            f"`cardamage split {shlex.quote(str(files.source))} OUT`",
        )
    elif "test" in missing and "valid" in there:
        findings.add("no test split", None)
    for split, folder in bare.items():
        findings.add("missing annotations", split, f"{files.source}/{folder}{ANNOTATIONS}")
    if not layout.is_roboflow:
        for part in layout.parts:
            where = part.root or "the top folder"
            findings.add("layout", part.split, f"{part.annotations}, with the images of {where}")
    for folder in layout.unused:
        findings.add("unused folder", None, folder or "the top folder")
    for path in layout.passed_over:
        findings.add("unused annotations", None, path)


def require_splits(
    files: ImageSource, may_lack: Collection[str], *, takes_valid: bool
) -> list[str]:
    """What is worth saying of an export's layout, a line each.

    Args:
        may_lack: the splits that need not be there.
        takes_valid: whether the valid split is to be taken out of train.

    Raises:
        DataError: it lacks a split that ``may_lack`` does not hold, or has a valid split where one
            is to be made from train.
    """
    findings = Findings()
    check_layout(files, findings, may_lack)
    if takes_valid and "valid" in files.splits():
        raise DataError(
            f"data.valid_share: {files.source} has a valid split of its own "
            f"({files.part('valid').annotations}); leave the key out"
        )
    for finding in findings.all():
        if finding.severity == "error":
            raise DataError(f"{files.source}: {finding.message}")
    return [finding.message for finding in findings.all()]
