"""Draw a small COCO export of damaged cars."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="a new or empty folder")
    parser.add_argument("--images", type=int, default=60, help="in all; default: %(default)s")
    parser.add_argument("--size", type=int, default=96, help="side, pixels; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    from cardamage.data.curation.synthetic import synthesize

    synthesize(arguments.out, images=arguments.images, size=arguments.size, seed=arguments.seed)
    print(arguments.out)
