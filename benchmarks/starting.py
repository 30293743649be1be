"""How soon a command answers, and how soon a stage trains.

    python -m benchmarks.starting

A stage is timed from the start of its process to its first training step, all imports, network,
shards and order included; beside a process that imports torch and builds the same network.
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import drawn
from benchmarks.pairs import compare, hold, program, seconds

COMMANDS = {
    "--help": ["--help"],
    "train --help": ["train", "--help"],
    "--version": ["--version"],
    "status, of one run": ["status"],
    "dry run": ["submit", "few", "--dry-run", "--cluster", "local"],
}
CONFIG = """\
data:
  source: synthetic
  synthetic: {images: 40, size: 64}
  classes: [scratch, dent, broken lamp]
  image_size: [64, 64]
model: {name: segnet2}
train: {epochs: 1, batch_size: 8}
"""
TO_FIRST_STEP = """\
import os, sys
from cardamage import cli
from cardamage.training import train

train.train_step = lambda *_, **__: os._exit(0)
cli.main(["train", "few", "name=begun"])
"""
BARE = """\
import torch
from cardamage.config.recipe import SegNet
from cardamage.models import build_model

build_model(SegNet(name="segnet2"), 4)
"""


def main() -> None:
    """Measure, and tell."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "few.yaml").write_text(CONFIG)
        drawn.cardamage(folder, "submit", "few", "--cluster", "local")
        for command, words in COMMANDS.items():
            refuse_torch(folder, words)
            run = partial(program, "-m", "cardamage", *words, folder=folder)
            hold(command, "<= 0.5", run, unit="s", packages=("pydantic", "rich"), repeats=7)
        run = partial(drawn.cardamage, folder, "submit", "few", "--cluster", "local")
        hold("a finished run submitted again", "<= 2.0", partial(seconds, run), unit="s")
        drawn.cardamage(folder, "pack", "few", "name=begun")
        compare(
            "start of a stage to its first step",
            "import torch + network",
            "<= 1.5",
            partial(program, "-c", TO_FIRST_STEP, folder=folder),
            partial(program, "-c", BARE, folder=folder),
            measured_in="s",
            packages=("torch", "accelerate"),
        )


def refuse_torch(folder: Path, words: list[str]) -> None:
    """Exit where a command imports torch."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cardamage", *words],
        cwd=folder,
        env=drawn.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    if any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines()):
        sys.exit(f"cardamage {' '.join(words)} imports torch")


if __name__ == "__main__":
    main()
