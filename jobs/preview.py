"""Draw an export's masks over its images: `python jobs/preview.py SOURCE --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from cardamage.console import start_logging
from cardamage.data.preview import Choice, preview
from cardamage.errors import ConfigError, run_program
from cardamage.paths import SPLITS


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder or .zip with train/, valid/, test/")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--split", choices=SPLITS, help="default: all three")
    parser.add_argument(
        "--images", type=int, default=20, metavar="N", help="of each split; default: %(default)s"
    )
    parser.add_argument(
        "--choose",
        choices=get_args(Choice),
        default="spread",
        help="spread evenly over the file names (default), at random, or the most damaged first",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random choice")
    arguments = parser.parse_args()
    start_logging()
    if arguments.images < 1:
        raise ConfigError(f"--images {arguments.images}: at least one image has to be drawn")
    drawn = preview(
        arguments.source,
        arguments.out,
        splits=[arguments.split] if arguments.split else SPLITS,
        images=arguments.images,
        choice=arguments.choose,
        seed=arguments.seed,
    )
    print(f"{drawn} images in {arguments.out}")


if __name__ == "__main__":
    run_program(main)
