"""Rank photos by how much is learnt from labelling them.

Prints the photos that a model is most uncertain of and that differ from each other, one a line, the
most useful first; see docs/predict.md.
"""

import argparse
import math
from pathlib import Path

from cardamage.commands.arguments import (
    add_batch_size,
    add_checkpoint,
    add_runs_dir,
    check_at_least_one,
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="a run, by name or path, a checkpoint file or an .onnx file"
    )
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="a folder of unlabelled photos"
    )
    parser.add_argument(
        "--number", type=int, default=50, metavar="N", help="how many (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a table (.csv) with the reasons as well"
    )
    add_checkpoint(parser)
    add_batch_size(parser)
    add_runs_dir(parser)


def run(arguments: argparse.Namespace) -> None:
    from cardamage.predict.chosen import choose_model
    from cardamage.predict.photos import find_photos
    from cardamage.predict.ranking import rank_photos
    from cardamage.runs.tables import Row, write_table

    check_at_least_one("photo", number=arguments.number, batch_size=arguments.batch_size)
    photos = find_photos(arguments.images)
    model = choose_model(arguments.run, arguments.checkpoint, arguments.runs_dir).model
    ranked = rank_photos(model, photos, arguments.number, batch_size=arguments.batch_size)
    for each in ranked:
        print(each.photo.path)
    if arguments.out:
        rows: list[Row] = [
            {
                "rank": rank,
                "image": each.photo.path.name,
                "uncertainty": round(each.uncertainty, 4),
                "distance": round(each.distance, 4) if math.isfinite(each.distance) else math.nan,
            }
            for rank, each in enumerate(ranked, start=1)
        ]
        write_table(arguments.out, rows)
