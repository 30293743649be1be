"""Draw an export's masks over its images; or what a network in training sees.

``cardamage preview SOURCE --out DIR`` draws the images of an export, with their masks over them.
``cardamage preview --config CONFIG --augmented --out DIR`` draws training images of an experiment
that has been packed, as they are and as its ``augment`` has them in the first epochs.
"""

import argparse
from pathlib import Path

from cardamage.commands.arguments import (
    add_annotations,
    add_runs_dir,
    annotations_by_split,
    painting,
)
from cardamage.errors import ConfigError
from cardamage.runs.paths import SPLITS


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, nargs="?", help="a COCO export: a folder or a .zip")
    add_annotations(parser)
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--split", choices=SPLITS, help="of a source; default: all there are")
    parser.add_argument(
        "--images", type=int, default=20, metavar="N", help="of each split; default: %(default)s"
    )
    parser.add_argument(
        "--choose",
        choices=("spread", "random", "damaged"),
        default="spread",
        help="spread evenly over the file names (default), at random, or the most damaged first",
    )
    parser.add_argument("--category", metavar="NAME", help="only images that show it")
    parser.add_argument("--seed", type=int, default=0, help="of the random choice")
    parser.add_argument(
        "--config",
        help="a YAML file or a run, by name or path, whose classes are drawn as they are packed",
    )
    parser.add_argument(
        "--augmented", action="store_true", help="draw training images of --config, augmented"
    )
    add_runs_dir(parser)


def run(arguments: argparse.Namespace) -> None:
    from cardamage.data.curation.preview import preview
    from cardamage.runs.lookup import locate

    if arguments.images < 1:
        raise ConfigError(f"--images {arguments.images}: at least one image has to be drawn")
    if arguments.augmented:
        drawn = _augmented(arguments)
    elif arguments.source is None:
        raise ConfigError("nothing to draw: name an export, or --config CONFIG --augmented")
    else:
        config = arguments.config and locate(arguments.config, arguments.runs_dir)
        chosen = annotations_by_split(arguments.annotations)
        options = painting(config)
        options["annotations"] = options.get("annotations", {}) | chosen
        for key in ("image_size", "may_lack"):  # people want to see all there is
            options.pop(key, None)
        drawn = preview(
            arguments.source,
            arguments.out,
            splits=[arguments.split] if arguments.split else None,
            images=arguments.images,
            choice=arguments.choose,
            seed=arguments.seed,
            category=arguments.category,
            **options,
        )
    print(f"{drawn} images in {arguments.out}")


def _augmented(arguments: argparse.Namespace) -> int:
    from cardamage.config import loading
    from cardamage.data.shards.reader import packed_splits
    from cardamage.errors import RunError
    from cardamage.runs.lookup import locate
    from cardamage.runs.paths import RunPaths

    if not arguments.config:
        raise ConfigError("--augmented draws the images of a --config: --config CONFIG --augmented")
    if arguments.category:
        raise ConfigError(f"--category {arguments.category}: it chooses images of an export only")
    if arguments.source:
        raise ConfigError(
            f"--augmented draws the images of --config {arguments.config}; "
            f"leave {arguments.source} out"
        )
    if arguments.split not in (None, "train"):
        raise ConfigError(f"--split {arguments.split}: only training images are augmented")
    target = locate(arguments.config, arguments.runs_dir)
    run = RunPaths(target)
    experiment = loading.load(run.config if target.is_dir() else target)
    if target.is_file():
        run = RunPaths(arguments.runs_dir / experiment.name)
    if not run.config.is_file():
        raise RunError(
            f"{run.root} is not there to take packed images from; "
            f"run `cardamage pack {arguments.config}`"
        )
    (reader,) = packed_splits(run, experiment, "train")

    from cardamage.training.preview import preview_augmented  # brings torch

    with reader:
        return preview_augmented(
            experiment,
            reader,
            arguments.out,
            images=arguments.images,
            choice=arguments.choose,
            seed=arguments.seed,
        )
