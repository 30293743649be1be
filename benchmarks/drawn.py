"""Datasets and runs to measure on: drawn cars, packed or trained as users do."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.pairs import ROOT
from cardamage.data.curation.synthetic import synthesize
from cardamage.data.shards.pack import pack

CLASSES = {name: [name] for name in ("scratch", "dent", "broken lamp")}


def export(folder: Path, *, images: int, size: int) -> Path:
    """A drawn export in ``folder``; made once."""
    if not folder.exists():
        synthesize(folder, images=images, size=size, seed=0)
    return folder


def shards(folder: Path, *, images: int, size: int) -> Path:
    """A drawn export, packed at ``size`` pixels from images a third larger; made once."""
    drawn = export(folder / f"drawn-{images}-{size}", images=images, size=size * 4 // 3)
    return pack(drawn, classes=CLASSES, image_size=(size, size), shards_dir=folder / "shards")


def cardamage(folder: Path, *words: object) -> None:
    """Run a command of this project in a folder; it has to succeed."""
    command = [sys.executable, "-m", "cardamage", *map(str, words)]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


def environment() -> dict[str, str]:
    """The environment of a program that imports this clone."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
