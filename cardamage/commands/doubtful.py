"""List labels to look at again: those that networks contradict which never trained on them.

Each run looks at its validation photos with its best checkpoint, so the runs of all folds of a
dataset look at every photo. Writes index.html, sheets and doubtful.csv; see docs/predict.md.
"""

import argparse
from pathlib import Path

from cardamage.commands.arguments import (
    add_batch_size,
    add_checkpoint,
    add_runs_dir,
    check_at_least_one,
)
from cardamage.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", nargs="+", metavar="RUN", help="a trained run, by name or path, as of every fold"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument(
        "--number", type=int, default=50, metavar="N", help="how many (%(default)s)"
    )
    parser.add_argument(
        "--split",
        choices=("valid", "test"),
        default="valid",
        help="which photos that the run was not trained on (%(default)s)",
    )
    add_batch_size(parser)
    add_checkpoint(parser)
    add_runs_dir(parser)


def run(arguments: argparse.Namespace) -> None:
    from cardamage.data.shards.reader import packed_splits
    from cardamage.predict.chosen import choose_model
    from cardamage.predict.doubtful import Looked, look_at, most_doubtful, write_doubtful
    from cardamage.system.console import log

    check_at_least_one("photo", number=arguments.number, batch_size=arguments.batch_size)
    held_out = []
    for word in arguments.run:
        chosen = choose_model(word, arguments.checkpoint, arguments.runs_dir)
        if chosen.run is None or chosen.experiment is None:
            raise ConfigError(f"{word} is a file; name its run, whose validation photos are known")
        (reader,) = packed_splits(chosen.run, chosen.experiment, arguments.split)
        held_out.append((chosen, reader))
    arguments.out.mkdir(parents=True, exist_ok=True)
    looked: list[Looked] = []
    for chosen, reader in held_out:
        epoch = chosen.model.info.epoch
        log.info("%s: epoch %d looks at %d photos", chosen.name, epoch, len(reader))
        looked += look_at(chosen.name, chosen.model, reader, batch_size=arguments.batch_size)
    photos = len({each.digest for each in looked})
    doubtful = most_doubtful(looked, arguments.number)
    write_doubtful(doubtful, photos, arguments.out)
    print(f"{len(doubtful)} of {photos:,} photos, index.html and doubtful.csv in {arguments.out}")
