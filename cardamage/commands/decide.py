"""Choose the trials of a round of a search. The jobs of a search on SLURM run this; nobody need."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY", help="the search's directory")
    parser.add_argument("round", type=int, help="its number, from 2")


def run(arguments: argparse.Namespace) -> None:
    from cardamage.launch.slurm.rounds import decide
    from cardamage.runs.paths import StudyPaths

    decide(StudyPaths(arguments.study), arguments.round)
