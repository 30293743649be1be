"""A folder of photos, checked, predicted and written."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torch import Tensor

from cardamage.errors import ConfigError, DataError
from cardamage.predict.label_tools import FILES, LabelFormat, write_cvat, write_label_studio
from cardamage.predict.maps import enlarge
from cardamage.predict.model import TrainedModel
from cardamage.predict.outputs import SUMMARIES, Outcome, Prepared, keep, prepare, summarise
from cardamage.predict.photos import (
    MaskFile,
    Photo,
    count_frames,
    find_masks,
    find_photos,
    passed_over,
    read_truth,
)
from cardamage.system.console import Progress, log
from cardamage.system.files import remove_abandoned_parts
from cardamage.system.processes import count_cores
from cardamage.training.failures import explain_out_of_memory

Masks = Mapping[str, Sequence[MaskFile]]

_READY = 64
"""Photos kept as the model and their sheet want them, some MB each, from checking to predicting."""


def refuse_inputs(out: Path, inputs: Sequence[Path | None]) -> None:
    """Refuse an ``out`` that is a folder of inputs, whose files the results could replace."""
    for given in inputs:
        folder = given.parent if given and given.is_file() else given
        if folder and out.resolve() == folder.resolve():
            raise ConfigError(f"--out {out} is the folder of the inputs; choose another")


def predict_folder(
    model: TrainedModel,
    facts: Mapping[str, object],
    *,
    images: Path,
    out: Path,
    masks_dir: Path | None = None,
    class_ids: Mapping[str, int] = MappingProxyType({}),
    batch_size: int = 8,
    flip: bool = False,
    simplify_px: float = 0.0,
    binary: bool = False,
    formats: Sequence[LabelFormat] = (),
    image_url: str = "",
) -> tuple[list[Outcome], dict[str, float]]:
    """Predict on a photo, or on those of a folder, and write maps, overlays and summaries.

    Args:
        facts: on where it comes from, for the summary: run, epoch, checkpoint.
        class_ids: the class of each name that masks have; see
            :func:`~cardamage.predict.photos.mask_classes`.
        flip: predict on each photo mirrored as well, and take the mean of the probabilities.
        simplify_px: how far polygons may stray, in pixels.
        binary: score all that is not background as one class, whatever class a mask says.
        formats: of labelling tools, to be written as well.
        image_url: what stands before the photos' names where Label Studio finds them.

    Returns:
        What became of each photo, and the scores over those with masks, empty without any.

    Raises:
        UserError: a photo, a mask, the checkpoint or the output folder cannot be used.
    """
    refuse_inputs(out, (images, masks_dir))
    photos = find_photos(images)
    if images.is_dir() and (others := passed_over(images)):
        log.info("%s also holds what is not looked at: %s", images, _first_five(others))
    masks: Masks = {}
    if masks_dir:
        masks = find_masks(masks_dir, photos, class_ids, others=images.is_file(), binary=binary)
    if masks and (bare := [photo.path.name for photo in photos if photo.name not in masks]):
        counted = f"{len(bare)} of {len(photos)}"
        log.info("%s images have no mask, so no scores: %s", counted, _first_five(bare))
    class_names, image_size = model.class_names, model.info.image_size
    known = None if binary else class_names
    source = f"epoch {facts['epoch']} of {facts['run']}" + (", flipped too" if flip else "")

    def take(photo: Photo) -> Prepared:
        return ready.pop(photo, None) or prepare(photo, image_size)

    def finish(prepared: Prepared, logits: Tensor) -> Outcome:
        width, height = prepared.size
        files = masks.get(prepared.photo.name)
        return keep(
            prepared,
            enlarge(logits, (height, width)),
            read_truth(prepared.photo, files, prepared.size, known) if files else None,
            out=out,
            class_names=class_names,
            source=source,
            simplify_px=simplify_px,
            binary=binary,
        )

    with ThreadPoolExecutor(count_cores()) as pool:
        ready = _check_all(photos, masks, known, pool, image_size)
        with _writing(out), explain_out_of_memory(_what_to_lower(batch_size)):
            outcomes: list[Outcome] = []
            with Progress("predict", len(photos), "images") as progress:
                for start in range(0, len(photos), batch_size):
                    batch = photos[start : start + batch_size]
                    prepared = list(pool.map(take, batch))
                    pixels = np.stack([each.pixels for each in prepared])
                    logits = model.logits(pixels, flip=flip)
                    outcomes += pool.map(finish, prepared, logits)
                    progress.advance(len(batch))
            told = {**facts, "flip": flip, **({"binary": True} if binary else {})}
            _write_formats(out, outcomes, class_names, formats, image_url, version=source)
            totals = summarise(outcomes, out, class_names, told, binary=binary)
    return outcomes, totals


def _write_formats(
    out: Path,
    outcomes: Sequence[Outcome],
    class_names: Sequence[str],
    formats: Sequence[LabelFormat],
    image_url: str,
    *,
    version: str,
) -> None:
    """Write what labelling tools import."""
    for form in formats:
        if form == "cvat":
            write_cvat(out, [outcome.name for outcome in outcomes], class_names)
        else:
            write_label_studio(
                out,
                [outcome.instances for outcome in outcomes],
                class_names,
                form=form,
                image_url=image_url,
                version=version,
            )


def _first_five(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _check_all(
    photos: Sequence[Photo],
    masks: Masks,
    class_names: Sequence[str] | None,
    pool: ThreadPoolExecutor,
    image_size: tuple[int, int],
) -> dict[Photo, Prepared]:
    """Read all photos and masks, so that all that is wrong is said before anything is written.

    Returns:
        The first photos, prepared, which need not be read again then.
    """
    problems: list[DataError] = []
    ready: dict[Photo, Prepared] = {}
    with Progress("check", len(photos), "images") as progress:
        check = partial(_check_photo, masks=masks, class_names=class_names, image_size=image_size)
        for photo, found in zip(photos, pool.map(check, photos), strict=True):
            progress.advance()
            if isinstance(found, DataError):
                problems.append(found)
            elif len(ready) < _READY:
                ready[photo] = found
    if len(problems) > 1:
        for problem in problems:
            log.error("%s", problem)
        raise DataError(f"{len(problems)} images cannot be used, first: {problems[0]}")
    if problems:
        raise problems[0]
    return ready


def _check_photo(
    photo: Photo,
    *,
    masks: Masks,
    class_names: Sequence[str] | None,
    image_size: tuple[int, int],
) -> DataError | Prepared:
    """The photo, or what is wrong with it or its mask; logs what is right but may surprise."""
    overlapped = 0
    try:
        prepared = prepare(photo, image_size)
        frames = count_frames(photo)
        if files := masks.get(photo.name):
            overlapped = read_truth(photo, files, prepared.size, class_names).overlapped_pixels
    except DataError as error:
        return error
    if frames > 1:
        log.warning("%s: the first of its %d frames is taken", photo.path.name, frames)
    if overlapped:
        log.warning(
            "%s: strokes of different classes meet in %d pixels, where the later annotation counts",
            photo.path.name,
            overlapped,
        )
    return prepared


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Make the output folder without earlier summaries; refuse one that cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_abandoned_parts(out)
        for name in (*SUMMARIES, *(name for names in FILES.values() for name in names)):
            (out / name).unlink(missing_ok=True)
        yield
    except OSError as error:
        raise ConfigError(
            f"--out {out} cannot be written to ({error.strerror}); choose another place"
        ) from None


def _what_to_lower(batch_size: int) -> str:
    if batch_size == 1:
        return "free some of it, or make the largest photos smaller"
    return f"lower --batch-size, which is {batch_size}"
