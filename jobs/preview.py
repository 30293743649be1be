"""Draw an export's masks over its images: `python jobs/preview.py SOURCE --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cardamage.data.preview import preview
from cardamage.errors import ConfigError, run_program
from cardamage.paths import SPLITS


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder or .zip with train/, valid/, test/")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--split", choices=SPLITS, help="default: all three")
    parser.add_argument(
        "--limit",
        type=int,
        default=20,
        help="images of each split, spread evenly; default: %(default)s",
    )
    arguments = parser.parse_args()
    if arguments.limit < 1:
        raise ConfigError(f"--limit {arguments.limit}: at least one image has to be drawn")
    splits = [arguments.split] if arguments.split else SPLITS
    drawn = preview(arguments.source, arguments.out, splits=splits, limit=arguments.limit)
    print(f"{drawn} images in {arguments.out}")


if __name__ == "__main__":
    run_program(main)
