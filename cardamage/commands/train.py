"""Train one experiment here; the same command again resumes.

On several GPUs or processes: ``accelerate launch -m cardamage train CONFIG``.
"""

import argparse

from cardamage.commands.arguments import add_experiment, is_done, resolved


def configure(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser, example="optim.lr=3e-4")


def run(arguments: argparse.Namespace) -> None:
    experiment, paths = resolved(arguments)
    if is_done(paths, experiment, "train"):
        return
    from cardamage.training.train import train_stage

    train_stage(experiment, paths)
