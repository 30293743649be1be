"""Pack an experiment's dataset into shards.

The same command resumes after an interruption and does nothing when the shards are complete. The
last line on standard output is the shard folder.
"""

import argparse
from pathlib import Path

from cardamage.commands.arguments import add_experiment, resolved
from cardamage.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser, example="data.subset=0.4")
    parser.add_argument("--workers", type=int, help="processes; default: one on each core")
    parser.add_argument(
        "--check",
        action="store_true",
        help="read every shard that is there, and make those again that were damaged",
    )
    parser.add_argument(
        "--also",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="run directories that pack alike, and get the same shards",
    )


def run(arguments: argparse.Namespace) -> None:
    from cardamage.data.shards.stage import pack_stage, packs_alike

    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigError(f"--workers {arguments.workers}: at least one process has to pack")
    experiment, paths = resolved(arguments)
    others = [packs_alike(experiment, folder) for folder in arguments.also]
    check, workers = arguments.check, arguments.workers
    print(pack_stage(experiment, paths, others=others, check=check, workers=workers))
