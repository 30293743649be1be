"""Dealing an export's images to splits anew: by photo and not by file, stratified.

Copies of one photo, by Roboflow's stem, by their bytes or by their look, stay together, and the
categories keep their shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cardamage.data.coco.records import Export, SplitExport
from cardamage.data.coco.source import ImageSource
from cardamage.data.coco.subset import stratified_order
from cardamage.data.curation.copies import Photo, groups_of_copies, photo_of
from cardamage.data.images import LEAVE_OUT, decode_image
from cardamage.data.pool import results_of, stop_if_unwanted
from cardamage.errors import DataError, counted
from cardamage.runs.paths import SPLITS
from cardamage.system.console import Progress

_CHUNK = 32  # images a process takes at a time
_FEW = 64  # not worth starting processes for

Place = tuple[str, str]
"""Split and file name in the source."""


def deal(
    export: Export,
    files: ImageSource,
    shares: Mapping[str, float],
    *,
    seed: int,
    skip_broken: bool = False,
    workers: int | None = None,
) -> dict[str, list[list[Place]]]:
    """The groups of copies that each new split gets, in a stratified order; one at least for each.

    Args:
        shares: of each new split, in the order train, valid, test; together 1.
        seed: another seed makes another split; the same one makes the same on every machine.
        skip_broken: images that cannot be read have no copies, instead of an error.
        workers: processes that look for copies; None for one on each core this process may use.

    Raises:
        DataError: there are fewer different photos than splits, or one cannot be read.
    """
    groups = groups_of_copies(_photos(export, files, workers, skip_broken=skip_broken))
    if len(groups) < len(shares):
        raise DataError(
            f"{export.source} has {counted(len(groups), 'different photo')}; {len(shares)} splits "
            f"need {len(shares)} or more"
        )
    records = [(part.name, image) for part in export.splits.values() for image in part.images]
    members = [[records[position] for position in group] for group in groups]
    order = stratified_order(
        [group[0][1].file_name for group in members],
        [{a.category_id for _, image in group for a in image.annotations} for group in members],
        seed=seed,
    )
    names = list(shares)
    parts: list[list[list[Place]]] = [[] for _ in names]
    # A group goes where its middle falls on the line of all images.
    ends = [sum([*shares.values()][: n + 1]) * len(records) for n in range(len(names))]
    so_far, at, last = 0, 0, len(names) - 1
    for left, position in zip(range(len(order), 0, -1), order, strict=True):
        group = [(name, image.file_name) for name, image in members[position]]
        full = so_far + len(group) / 2 > ends[at]
        if parts[at] and at < last and (full or left == last - at):
            at += 1
        parts[at].append(group)
        so_far += len(group)
    return dict(zip(names, parts, strict=True))


def dealt(
    export: Export,
    files: ImageSource,
    *,
    shares: Sequence[float] | None = None,
    seed: int = 0,
    valid_share: float | None = None,
    folds: tuple[int, int] | None = None,
    skip_broken: bool = False,
    workers: int | None = None,
) -> Export:
    """An export with splits of its own, over the images as they lie.

    Args:
        shares: of train, valid and test, from all images.
        valid_share: of train, to be valid; whatever else there is stays.
        folds: how many equal parts train and valid together are dealt to, and which of them, from
            0, is valid.
        skip_broken: see :func:`deal`.

    Raises:
        DataError: see :func:`deal`.
    """
    if shares is not None:
        parts = dict(zip(SPLITS, shares, strict=True))
        groups = deal(export, files, parts, seed=seed, skip_broken=skip_broken, workers=workers)
        return _moved(export, groups)
    taken: tuple[str, ...]
    if folds is not None:
        taken, (count, chosen) = ("train", "valid"), folds
        parts = {f"fold {number}": 1 / count for number in range(count)}
    elif valid_share is not None:
        taken, chosen = ("train",), 1
        parts = {"train": 1 - valid_share, "valid": valid_share}
    else:
        return export
    pool = replace(export, splits={s: p for s, p in export.splits.items() if s in taken})
    groups = deal(pool, files, parts, seed=seed, skip_broken=skip_broken, workers=workers)
    valid = groups.pop(list(parts)[chosen])
    train = [group for part in groups.values() for group in part]
    rest = {split: part for split, part in export.splits.items() if split not in taken}
    return replace(export, splits=_moved(pool, {"train": train, "valid": valid}).splits | rest)


def _moved(export: Export, parts: Mapping[str, Sequence[Sequence[Place]]]) -> Export:
    by_place = {
        (part.name, image.file_name): replace(image, lies_in=part.name)
        for part in export.splits.values()
        for image in part.images
    }
    splits = {}
    for split, groups in parts.items():
        images = sorted(
            (by_place[place] for group in groups for place in group),
            key=lambda image: (image.file_name, image.lies_in),
        )
        before = export.splits.get(split)
        broken = before.broken if before else {}
        splits[split] = SplitExport(split, export.categories, tuple(images), len(images), broken)
    return replace(export, splits=splits)


@dataclass(frozen=True)
class _Look:
    """Reads some images for what tells their copies."""

    source: ImageSource
    places: tuple[Place, ...]
    skip_broken: bool

    def __call__(self) -> list[Photo]:
        photos = []
        for part, name in self.places:
            stop_if_unwanted()
            where = f"{self.source.source}: {part}/{name}"
            content, image = b"", None
            try:
                content = self.source.read(part, name)
                image = decode_image(content, name=where, remedy=LEAVE_OUT)
            except DataError:
                if not self.skip_broken:
                    raise
            photos.append(photo_of(part, name, content or where.encode(), image))
        return photos


def _photos(
    export: Export, files: ImageSource, workers: int | None, *, skip_broken: bool
) -> list[Photo]:
    places = [(part.name, i.file_name) for part in export.splits.values() for i in part.images]
    tasks = [
        _Look(files, tuple(places[start : start + _CHUNK]), skip_broken)
        for start in range(0, len(places), _CHUNK)
    ]
    photos: list[Photo] = []
    with Progress("split", len(places), "images") as progress:
        for part in results_of(tasks, 1 if len(places) <= _FEW else workers, what="splitting"):
            photos += part
            progress.advance(len(part))
    return photos
