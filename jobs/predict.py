"""Predict on photos: `python jobs/predict.py RUN --images DIR --out DIR`.

Writes of each photo its class ids (<photo>.png, 8-bit grey, of the photo's size) and a sheet to
look at (<photo>.overlay.jpg), and of all of them predictions.csv, with scores where masks exist.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import nn

from cardamage.config import Experiment
from cardamage.console import Progress, log, start_logging
from cardamage.data.photos import (
    MaskFile,
    Photo,
    find_masks,
    find_photos,
    name_classes,
    read_photo,
    read_truth,
)
from cardamage.errors import ConfigError, run_program
from cardamage.models import build_model
from cardamage.predict import choose_checkpoint, predict
from cardamage.predictions import Outcome, keep, photo_scores, rows
from cardamage.processes import count_cores
from cardamage.runs import resolve
from cardamage.selection import rule
from cardamage.tables import write_table
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
    photos = find_photos(arguments.images)
    masks = masks_of(photos, arguments.masks, arguments.class_map, experiment)
    epoch, path = choose_checkpoint(run, arguments.checkpoint, experiment.test.select_by)
    model = load_model(experiment, path)

    best = f" ({rule(experiment.test.select_by)})" if arguments.checkpoint == "best" else ""
    log.info("predicting with epoch %d%s of %s on %s", epoch, best, run.root, device_name(model))
    class_names, batch_size = experiment.data.class_names, arguments.batch_size
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(count_cores()) as pool:
        check = partial(check_photo, masks=masks, class_names=class_names)
        with Progress("check", len(photos), "images") as progress:
            for _ in pool.map(check, photos):
                progress.advance()
        make(out)
        with Progress("predict", len(photos), "images") as progress:
            for start in range(0, len(photos), batch_size):
                batch = photos[start : start + batch_size]
                images = list(pool.map(read_photo, batch))
                truths = [
                    read_truth(masks[photo.name], image.size, class_names).mask
                    if photo.name in masks
                    else None
                    for photo, image in zip(batch, images, strict=True)
                ]
                maps = predict(
                    model, images, image_size=experiment.data.image_size, batch_size=batch_size
                )
                save = partial(keep, out=out, class_names=class_names)
                outcomes += pool.map(save, batch, images, maps, truths)
                progress.advance(len(batch))
    write_table(out / "predictions.csv", rows(outcomes))
    print(f"{len(photos)} maps, {len(photos)} overlays and predictions.csv in {out}")
    if counts := [outcome.counts for outcome in outcomes if outcome.counts is not None]:
        print(f"over the {len(counts)} images with a mask:")
        for name, value in photo_scores(counts, class_names).items():
            print(f"  {name:<32} {'undefined' if math.isnan(value) else f'{value:.4f}'}")


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
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size {arguments.batch_size}: at least one photo a forward pass")
    return arguments


def refuse_inputs(out: Path, inputs: Sequence[Path | None]) -> Path:
    """``out``, unless it is a folder of inputs, whose files the results could replace."""
    for folder in inputs:
        if folder and out.resolve() == folder.resolve():
            raise ConfigError(f"--out {out} is the folder of the inputs; choose another")
    return out


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


def check_photo(photo: Photo, *, masks: Masks, class_names: Sequence[str]) -> None:
    """Read a photo and its mask, so that whatever is wrong is said before anything is written."""
    image = read_photo(photo)
    if photo.name not in masks:
        return
    if overlapped := read_truth(masks[photo.name], image.size, class_names).overlapped_pixels:
        log.warning(
            "%s: strokes of different classes meet in %d pixels, where the later annotation counts",
            photo.path.name,
            overlapped,
        )


def make(out: Path) -> None:
    """Make the output folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out {out} cannot be made ({error.strerror}); choose another place"
        ) from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {out} cannot be written to; choose another place")


if __name__ == "__main__":
    run_program(main)
