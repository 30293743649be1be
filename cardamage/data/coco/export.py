"""A COCO segmentation export: splits, each with one annotation file.

There is one way in, :func:`scan_export`, which never stops at the first fault: it keeps what can be
used and lists all that is wrong. :func:`read_export` is the same for those who need it faultless.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from cardamage.data.coco.annotation_file import BadJsonError, parsed
from cardamage.data.coco.categories import common_ids, unused_roots
from cardamage.data.coco.findings import UNREADABLE, Finding, Findings, skipping
from cardamage.data.coco.layout_check import check_layout
from cardamage.data.coco.records import Export, SplitExport
from cardamage.data.coco.source import ImageSource
from cardamage.data.coco.split_scan import SplitScan
from cardamage.errors import DataError, shown
from cardamage.runs.paths import SPLITS


def read_export(
    source: Path,
    annotations: Mapping[str, str] | None = None,
    *,
    may_lack: Collection[str] = ("test",),
    skip_broken: bool = False,
) -> Export:
    """An export without errors; warnings pass.

    Args:
        source: a folder or a .zip.
        annotations: annotation files by split, where several could be meant.
        may_lack: the splits that need not be there.
        skip_broken: leave out images that cannot be used, instead of raising.

    Raises:
        DataError: the export has an error; the message tells the first, and how many more.
    """
    export, findings = scan_export(source, annotations, may_lack=may_lack)
    if skip_broken:
        export, findings = export and export.without_broken(), skipping(findings)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors or export is None:
        first = errors[0]
        where = "" if first.kind == UNREADABLE else f"{source}: "
        more = (
            f" ({len(errors) - 1} more kinds of error; see cardamage audit)" if errors[1:] else ""
        )
        raise DataError(f"{where}{first.message}{more}")
    return export


def scan_export(
    source: Path,
    annotations: Mapping[str, str] | None = None,
    *,
    may_lack: Collection[str] = ("test",),
) -> tuple[Export | None, list[Finding]]:
    """Everything usable of an export, and everything wrong with its structure, errors first.

    Images are not opened. Records with an error are left out of the export; it is None when not
    one split could be read.

    Args:
        annotations: annotation files by split, where several could be meant.
        may_lack: the splits that need not be there.
    """
    findings = Findings()
    splits, numbers = {}, dict[str, int]()
    try:
        files = ImageSource(source, annotations)
        check_layout(files, findings, may_lack)
        listed: set[str] = set()
        for split in SPLITS:
            if split not in files.splits():
                continue
            if scanned := _scan_split(files, split, findings, numbers):
                splits[split], names = scanned
                listed |= {files.part(split).root + name for name in names}
        for split in splits:
            root = files.part(split).root  # other splits' images may lie there too
            for name in sorted(n for n in files.names(split) if root + n not in listed):
                listed.add(root + name)
                findings.add("unlisted file", split, shown(name))
        files.close()
    except DataError as error:
        findings.add(UNREADABLE, None, str(error))
    if not splits:
        return None, findings.all()
    export = Export(source, _with_common_ids(splits, findings))
    _check_categories(export, findings)
    return export, findings.all()


def _with_common_ids(
    splits: Mapping[str, SplitExport], findings: Findings
) -> dict[str, SplitExport]:
    """The same splits, with category ids that mean the same in each of them: by name."""
    ids = common_ids({split: found.categories for split, found in splits.items()})
    found = {}
    for name, split in splits.items():
        for category in split.categories:
            if ids[name][category.id] != category.id:
                text = f"{shown(category.name)} is {category.id}, not {ids[name][category.id]}"
                findings.add("other category ids", name, text)
        found[name] = split.renumbered(ids[name])
    return found


def _check_categories(export: Export, findings: Findings) -> None:
    used = export.used_categories()
    roots = unused_roots(export.categories, used)
    for category in export.categories:
        if category in roots:
            findings.add("unused root", None, f"{shown(category.name)} (id {category.id})")
        elif category.id not in used:
            findings.add("unused category", None, f"{shown(category.name)} (id {category.id})")


def _scan_split(
    files: ImageSource, split: str, findings: Findings, numbers: dict[str, int]
) -> tuple[SplitExport, set[str]] | None:
    """A split, and the files that its annotation file lists."""
    scan = SplitScan(files, split, findings, numbers)
    try:
        scan.take_all(parsed(files.annotations(split)))
    except BadJsonError as error:
        findings.add("broken annotations", split, f"{files.part(split).annotations}: {error}")
        return None
    except DataError as error:
        findings.add(UNREADABLE, split, str(error))
        return None
    return scan.finish(), scan.names
