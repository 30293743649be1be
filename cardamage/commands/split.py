"""Split a COCO export into train, valid and test.

Copies of one photo stay together, and the categories keep their shares. SOURCE is not changed.
"""

import argparse
from pathlib import Path

from cardamage.commands.arguments import add_annotations, annotations_by_split


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a folder or .zip, with splits or without")
    parser.add_argument("out", type=Path, help="a new or empty folder")
    parser.add_argument(
        "--shares",
        type=float,
        nargs=3,
        default=(0.7, 0.15, 0.15),
        metavar=("TRAIN", "VALID", "TEST"),
        help="default: 0.7 0.15 0.15",
    )
    add_annotations(parser)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    from cardamage.data.curation.split import split

    made = split(
        arguments.source,
        arguments.out,
        shares=arguments.shares,
        seed=arguments.seed,
        annotations=annotations_by_split(arguments.annotations),
    )
    for name, images in made.images.items():
        print(f"{name:6}{images:,} images of {made.photos[name]:,} photos")
    print(arguments.out)
