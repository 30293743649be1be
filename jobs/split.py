"""Split a COCO export into train, valid and test: `python jobs/split.py SOURCE OUT`.

Copies of one photo stay together, and the categories keep their shares. SOURCE is not changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cardamage.console import start_logging
from cardamage.data.split import split
from cardamage.errors import run_program


def main() -> None:
    """Parse the command line and split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args()
    start_logging()
    made = split(arguments.source, arguments.out, shares=arguments.shares, seed=arguments.seed)
    for name, images in made.images.items():
        print(f"{name:6}{images:,} images of {made.photos[name]:,} photos")
    print(arguments.out)


if __name__ == "__main__":
    run_program(main)
