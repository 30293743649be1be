"""Test every epoch's checkpoint of a run that has no result yet."""

import argparse

from cardamage.commands.arguments import add_experiment, is_done, resolved
from cardamage.runs.directory import as_tested


def configure(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser, example="test.split=valid")
    parser.add_argument(
        "--part",
        metavar="I/K",
        default="0/1",
        help="of K parts of the checkpoints test only part I, from 0, and write no table; "
        "several machines may do so at once, and the same command without it ends the stage",
    )


def run(arguments: argparse.Namespace) -> None:
    from cardamage.evaluation.results import is_sound

    experiment, paths = resolved(arguments)
    split = as_tested(paths, experiment).test.split
    if arguments.part == "0/1" and is_done(paths, experiment, "test") and is_sound(paths, split):
        print(paths.test_table(split))
        return
    from cardamage.training.test import Part, test_stage

    part = Part.parse(arguments.part)
    test_stage(experiment, paths, part)
