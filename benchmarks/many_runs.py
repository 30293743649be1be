"""How long 500 runs take to be listed: by `cardamage status`, and by `cardamage report --index`.

    python -m benchmarks.many_runs
    python -m benchmarks.many_runs --runs 2000

The runs are copies of a finished one of ten epochs.
"""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.pairs import hold, program
from cardamage.runs.paths import RunPaths
from tests.helpers.finished_runs import make_run


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_runs(folder / "runs", arguments.runs)
        run = partial(program, "-m", "cardamage", folder=folder)
        bars = {"status": ("<= 2.0", ["status"]), "index": ("<= 10.0", ["report", "--index"])}
        for what, (bar, words) in bars.items():
            claim = f"{what} of {arguments.runs:,} runs"
            hold(claim, bar, partial(run, *words), unit="s", packages=("pyyaml", "rich"))


def copy_runs(folder: Path, count: int) -> None:
    """A finished run and copies of it, without its checkpoints and maps."""
    folder.mkdir()
    first = make_run(folder / "run-0000", epochs=10, images=4)
    for number in range(1, count):
        root = folder / f"run-{number:04d}"
        shutil.copytree(
            first.root, root, ignore=shutil.ignore_patterns("*.safetensors", "*.npz", "logs")
        )
        config = RunPaths(root).config
        config.write_text(config.read_text().replace(first.root.name, root.name))


if __name__ == "__main__":
    main()
