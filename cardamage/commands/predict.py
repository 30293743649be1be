"""Predict on photos.

Writes of each photo its class ids (<photo>.png, 8 bits with a palette, of the photo's size) and a
sheet to look at (<photo>.overlay.jpg), and of all of them index.html, predictions.csv and
predictions.json, with scores where masks exist, and predictions.coco.json, to import into a
labelling tool.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from cardamage.commands.arguments import add_batch_size, add_checkpoint, add_runs_dir
from cardamage.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        nargs="+",
        metavar="RUN",
        help="a run, by name or path, a checkpoint file or an exported .onnx file; of several, "
        "such as other seeds, the mean of the probabilities counts",
    )
    parser.add_argument(
        "--images", type=Path, required=True, metavar="PATH", help="a photo or a folder"
    )
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
        "--binary",
        action="store_true",
        help="score damage against background, whatever class a mask or the run gives it",
    )
    add_checkpoint(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    add_batch_size(parser)
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
    parser.add_argument(
        "--format",
        action="append",
        default=[],
        choices=("label-studio", "label-studio-polygons", "cvat"),
        help="also write what a labelling tool imports: tasks with brush strokes or polygons, or "
        "an archive of masks; repeatable",
    )
    parser.add_argument(
        "--image-url",
        default="/data/local-files/?d=",
        metavar="URL",
        help="what stands before a photo's name where Label Studio finds it (%(default)s)",
    )
    add_runs_dir(parser)


def run(arguments: argparse.Namespace) -> None:
    from cardamage.predict.chosen import choose_model
    from cardamage.predict.folder import predict_folder, refuse_inputs
    from cardamage.predict.label_tools import FILES
    from cardamage.predict.model import TrainedModel
    from cardamage.predict.outputs import SUMMARIES
    from cardamage.predict.photos import mask_classes
    from cardamage.system.console import log

    _check(arguments)
    refuse_inputs(arguments.out, (arguments.images, arguments.masks))
    groups: Mapping[str, Sequence[str]] = {}
    drop: Sequence[str] = ()
    models: list[TrainedModel] = []
    names: list[str] = []
    files: list[str] = []
    for word in arguments.run:
        chosen = choose_model(word, arguments.checkpoint, arguments.runs_dir)
        model, name, file, experiment = chosen.model, chosen.name, chosen.file, chosen.experiment
        if experiment:
            groups, drop = experiment.data.class_groups, experiment.data.drop
        else:
            groups = groups or {class_name: (class_name,) for class_name in model.class_names[1:]}
        epoch, best = model.info.epoch, f" ({chosen.rule})" if chosen.rule else ""
        log.info("predicting with epoch %d%s of %s on %s", epoch, best, name, model.device_name)
        models.append(model)
        names.append(name)
        files.append(file.name)
    model = TrainedModel.together(models)
    outcomes, totals = predict_folder(
        model,
        {"run": " + ".join(names), "epoch": model.info.epoch, "checkpoint": " + ".join(files)},
        images=arguments.images,
        out=arguments.out,
        masks_dir=arguments.masks,
        class_ids=mask_classes(groups, drop, arguments.class_map),
        batch_size=arguments.batch_size,
        flip=arguments.flip,
        simplify_px=arguments.simplify,
        binary=arguments.binary,
        formats=arguments.format,
        image_url=arguments.image_url,
    )
    maps, out = len(outcomes), arguments.out
    more = [name for form in arguments.format for name in FILES[form]]
    print(f"{maps} maps, {maps} overlays, {', '.join([*SUMMARIES, *more])} in {out}")
    if totals:
        print(f"over the {sum(o.counts is not None for o in outcomes)} images with a mask:")
        for score, value in totals.items():
            if not math.isnan(value):
                print(f"  {score:<32} {value:.4f}")


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if not 0 <= arguments.simplify < math.inf:
        raise ConfigError(f"--simplify {arguments.simplify}: a number of pixels, 0 or more")
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size {arguments.batch_size}: at least one photo a forward pass")
    if arguments.binary and not arguments.masks:
        raise ConfigError("--binary tells how masks are scored; give their folder as --masks")
    if {"label-studio", "label-studio-polygons"} <= {*arguments.format}:
        raise ConfigError("--format label-studio and label-studio-polygons make one file; name one")
    if arguments.class_map and not arguments.masks:
        raise ConfigError("--class-map tells what masks show; give their folder as --masks")
