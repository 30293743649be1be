"""Write a first experiment file for a dataset.

The classes are the dataset's categories; merge, rename or leave out what you like. Nothing is
packed or trained.
"""

import argparse
from pathlib import Path

from cardamage.commands.arguments import add_annotations, annotations_by_split
from cardamage.errors import ConfigError
from cardamage.runs.paths import SPLITS


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a COCO export: a folder or a .zip")
    add_annotations(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: named after the dataset, here"
    )


def run(arguments: argparse.Namespace) -> None:
    import os

    from cardamage.config.shipped import SCHEMA
    from cardamage.data.coco.export import read_export
    from cardamage.data.curation.first_config import first_config, name_from
    from cardamage.launch.local.commands import count_gpus
    from cardamage.system.files import write_text

    out = arguments.out or Path(f"{name_from(arguments.source)}.yaml")
    if out.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--out {out}: an experiment file ends in .yaml")
    if out.exists():
        raise ConfigError(f"{out.absolute()} is there already; choose another with --out")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent.absolute()} does not exist; make it, or choose another")
    annotations = annotations_by_split(arguments.annotations)
    export = read_export(arguments.source, annotations, may_lack=SPLITS, skip_broken=True)
    source = os.path.relpath(arguments.source, out.parent)
    if source.startswith(".."):
        source = str(arguments.source.absolute())
    text = first_config(
        export,
        source,
        name=name_from(Path(out.stem)),
        schema=SCHEMA.as_uri(),
        gpu=count_gpus() > 0,
        annotations=annotations,
    )
    write_text(out, text)
    word = out.stem if out.parent == Path() else out
    print(f"{out}: next, cardamage submit {word} --dry-run, then cardamage submit {word}")
