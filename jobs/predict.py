"""Predict on photos: `python jobs/predict.py RUN --images DIR --out DIR`.

Writes of each photo its class ids (<photo>.png, 8-bit grey, of the photo's size) and a sheet to
look at (<photo>.overlay.jpg), and of all of them predictions.csv and predictions.json, with scores
where masks exist, and predictions.coco.json, to import into a labelling tool.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cardamage.config import Experiment
from cardamage.console import Progress, log, start_logging
from cardamage.data.photos import (
    MaskFile,
    Photo,
    count_frames,
    find_masks,
    find_photos,
    name_classes,
    passed_over,
    read_photo,
    read_truth,
)
from cardamage.errors import ConfigError, DataError, run_program
from cardamage.files import remove_abandoned_parts
from cardamage.memory import naming_what_to_lower
from cardamage.models import build_model
from cardamage.predict import choose_checkpoint, enlarge, predict
from cardamage.predictions import SUMMARIES, Outcome, Prepared, keep, prepare, summarise
from cardamage.processes import count_cores
from cardamage.runs import resolve
from cardamage.selection import rule
from cardamage.training.checkpoint import check_belongs, load_checkpoint, load_weights

Masks = Mapping[str, Sequence[MaskFile]]


def main() -> None:
    """Parse the command line and predict."""
    arguments = parse()
    start_logging()
    if not arguments.run.is_dir():
        raise ConfigError(f"{arguments.run} is no run directory; name a folder such as runs/unet2")
    experiment, run = resolve(arguments.run)
    out = refuse_inputs(arguments.out, (arguments.images, arguments.masks))
    photos = photos_in(arguments.images)
    masks = masks_of(photos, arguments.masks, arguments.class_map, experiment)
    epoch, path = choose_checkpoint(run, arguments.checkpoint, experiment.test.select_by)
    model = load_model(experiment, path)
    class_names, image_size = experiment.data.class_names, experiment.data.image_size

    best = f" ({rule(experiment.test.select_by)})" if arguments.checkpoint == "best" else ""
    log.info("predicting with epoch %d%s of %s on %s", epoch, best, run.root, device_name(model))
    source = f"epoch {epoch} of {experiment.name}" + (", flipped too" if arguments.flip else "")
    with ThreadPoolExecutor(count_cores()) as pool:
        check_all(photos, masks, class_names, pool)
        with writing(out), naming_what_to_lower(what_to_lower(arguments.batch_size)):
            outcomes: list[Outcome] = []
            finish = partial(
                finish_photo,
                masks=masks,
                out=out,
                class_names=class_names,
                source=source,
                simplify_px=arguments.simplify,
            )
            with Progress("predict", len(photos), "images") as progress:
                for start in range(0, len(photos), arguments.batch_size):
                    batch = photos[start : start + arguments.batch_size]
                    prepared = list(pool.map(partial(prepare, image_size=image_size), batch))
                    pixels = np.stack([each.pixels for each in prepared])
                    logits = predict(model, pixels, flip=arguments.flip)
                    outcomes += pool.map(finish, prepared, logits)
                    progress.advance(len(batch))
            facts = {
                "run": experiment.name,
                "epoch": epoch,
                "checkpoint": path.name,
                "flip": arguments.flip,
            }
            totals = summarise(outcomes, out, class_names, facts)
    print(f"{len(photos)} maps, {len(photos)} overlays, {', '.join(SUMMARIES)} in {out}")
    if totals:
        print(f"over the {sum(o.counts is not None for o in outcomes)} images with a mask:")
        for name, value in totals.items():
            if not math.isnan(value):
                print(f"  {name:<32} {value:.4f}")


def what_to_lower(batch_size: int) -> str:
    """The remedy for predicting that runs out of memory."""
    if batch_size == 1:
        return "free some of it, or make the largest photos smaller"
    return f"lower --batch-size, which is {batch_size}"


def finish_photo(
    prepared: Prepared,
    logits: Tensor,
    *,
    masks: Masks,
    out: Path,
    class_names: Sequence[str],
    source: str,
    simplify_px: float,
) -> Outcome:
    """From logits to everything that is kept of a photo."""
    width, height = prepared.size
    truth = None
    if files := masks.get(prepared.photo.name):
        truth = read_truth(prepared.photo, files, prepared.size, class_names)
    found = enlarge(logits, (height, width))
    return keep(
        prepared,
        found,
        truth,
        out=out,
        class_names=class_names,
        source=source,
        simplify_px=simplify_px,
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory, as in runs/unet2")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the photos")
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="what people drew: <photo>.png with class ids, or Label Studio's "
        "task-<photo>-annotation-<n>-by-<n>-tag-<class>-<k>.png",
    )
    parser.add_argument(
        "--class-map",
        action="append",
        default=[],
        metavar='"NAME=CLASS"',
        help="a Label Studio class that the run knows as CLASS, or as background; repeatable",
    )
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="best|last|N",
        help="the best by the validation split (default), the last, or that of epoch N",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="photos a forward pass (%(default)s)"
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="predict on each photo mirrored as well, and take the mean of the probabilities",
    )
    parser.add_argument(
        "--simplify",
        type=float,
        default=0.0,
        metavar="PX",
        help="leave corners out of the polygons of predictions.coco.json, which then stray by PX "
        "pixels at most; default: none, so that they are exact",
    )
    arguments = parser.parse_args()
    if not 0 <= arguments.simplify < math.inf:
        raise ConfigError(f"--simplify {arguments.simplify}: a number of pixels, 0 or more")
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size {arguments.batch_size}: at least one photo a forward pass")
    return arguments


def refuse_inputs(out: Path, inputs: Sequence[Path | None]) -> Path:
    """``out``, unless it is a folder of inputs, whose files the results could replace."""
    for folder in inputs:
        if folder and out.resolve() == folder.resolve():
            raise ConfigError(f"--out {out} is the folder of the inputs; choose another")
    return out


def photos_in(folder: Path) -> list[Photo]:
    """The photos of a folder; says what else lies there."""
    photos = find_photos(folder)
    if others := passed_over(folder):
        named = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        log.info("%s also holds what is not looked at: %s", folder, named)
    return photos


def masks_of(
    photos: Sequence[Photo], folder: Path | None, class_map: Sequence[str], experiment: Experiment
) -> Masks:
    """The mask files of each photo, by its name; says which photos have none."""
    if folder is None:
        if class_map:
            raise ConfigError("--class-map tells what masks show; give their folder as --masks")
        return {}
    renamed = {}
    for option in class_map:
        name, _, meant = option.rpartition("=")
        if not (name and meant):
            raise ConfigError(
                f'--class-map "{option}" is no pair; write "NAME=CLASS", as in "Severe=damage"'
            )
        renamed[name] = meant
    class_ids = name_classes(experiment.data.class_groups, experiment.data.drop, renamed)
    masks = find_masks(folder, photos, class_ids)
    if bare := [photo.path.name for photo in photos if photo.name not in masks]:
        named = ", ".join(bare[:5]) + (", ..." if len(bare) > 5 else "")
        log.info("%d of %d images have no mask, so no scores: %s", len(bare), len(photos), named)
    return masks


def load_model(experiment: Experiment, path: Path) -> nn.Module:
    """The run's model with the weights of a checkpoint, on the GPU where there is one."""
    checkpoint = load_checkpoint(path)
    check_belongs(checkpoint, experiment.hash(), path)
    model = build_model(experiment.model, len(experiment.data.class_names))
    load_weights(model, checkpoint, path)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def device_name(model: nn.Module) -> str:
    """Where a model computes, in words."""
    device = next(model.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def check_all(
    photos: Sequence[Photo], masks: Masks, class_names: Sequence[str], pool: ThreadPoolExecutor
) -> None:
    """Read all photos and masks, so that all that is wrong is said before anything is written.

    Raises:
        DataError: some cannot be used.
    """
    problems = []
    with Progress("check", len(photos), "images") as progress:
        for problem in pool.map(partial(check_photo, masks=masks, class_names=class_names), photos):
            progress.advance()
            if problem:
                problems.append(problem)
    if len(problems) > 1:
        for problem in problems:
            log.error("%s", problem)
        raise DataError(f"{len(problems)} images cannot be used, first: {problems[0]}")
    if problems:
        raise problems[0]


def check_photo(photo: Photo, *, masks: Masks, class_names: Sequence[str]) -> DataError | None:
    """What is wrong with a photo or its mask; tells what is not, but may surprise."""
    try:
        size = read_photo(photo).size
        frames = count_frames(photo)
        if files := masks.get(photo.name):
            overlapped = read_truth(photo, files, size, class_names).overlapped_pixels
        else:
            overlapped = 0
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
    return None


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Make the output folder without earlier summaries; what cannot be written is said in a line.

    Raises:
        ConfigError: the folder, or something in it, cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_abandoned_parts(out)
        for name in SUMMARIES:
            (out / name).unlink(missing_ok=True)
        yield
    except OSError as error:
        raise ConfigError(
            f"--out {out} cannot be written to ({error.strerror}); choose another place"
        ) from None


if __name__ == "__main__":
    run_program(main)
