"""What is in a COCO export and what is wrong with it.

With ``--config`` the classes of an experiment are counted instead of the categories. Ends with 0
when the export can be packed, warnings or not, and with 2 when it has errors.
"""

import argparse
import json
import sys
from pathlib import Path

from cardamage.commands.arguments import add_annotations, annotations_by_split, painting
from cardamage.errors import ConfigError, DataError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a COCO export: a folder or a .zip")
    add_annotations(parser)
    parser.add_argument("--config", type=Path, help="count the classes of this YAML file or run")
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="count what is lost at this size; default: that of --config, or the images' own",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep all findings there (audit.json), and sheets of photos that look alike",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(arguments: argparse.Namespace) -> None:
    from cardamage.data.curation.audit import audit
    from cardamage.data.curation.display import show
    from cardamage.data.curation.kept import keep
    from cardamage.data.shards.manifest import MAX_SIDE

    options = painting(arguments.config)
    options["annotations"] = options.get("annotations", {}) | annotations_by_split(
        arguments.annotations
    )
    if arguments.image_size:
        if not all(1 <= side <= MAX_SIDE for side in arguments.image_size):
            height, width = arguments.image_size
            raise ConfigError(f"--image-size {height} {width}: each side is 1 to {MAX_SIDE} pixels")
        options["image_size"] = tuple(arguments.image_size)
    result = audit(arguments.source, **options)
    written = keep(result, arguments.out) if arguments.out else []
    if arguments.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        show(result, classes=arguments.config is not None)
    if written:
        print(f"{', '.join(path.name for path in written)} in {arguments.out}", file=sys.stderr)
    if errors := result.errors:
        kinds = "1 kind of error" if len(errors) == 1 else f"{len(errors)} kinds of errors"
        raise DataError(f"{result.source} has {kinds}, first: {errors[0].message}")
