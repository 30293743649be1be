"""Draw a small COCO export of damaged cars: `python jobs/synthesize.py OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cardamage.data.synthetic import synthesize
from cardamage.errors import run_program


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="a new or empty folder")
    parser.add_argument("--images", type=int, default=60, help="in all; default: %(default)s")
    parser.add_argument("--size", type=int, default=96, help="side, pixels; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args()
    synthesize(arguments.out, images=arguments.images, size=arguments.size, seed=arguments.seed)
    print(arguments.out)


if __name__ == "__main__":
    run_program(main)
