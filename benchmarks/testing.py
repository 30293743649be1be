"""Testing ten checkpoints of a run at once, beside ten tests of one checkpoint each.

    python -m benchmarks.testing
    python -m benchmarks.testing --network unet2 --image-px 240

Both are `cardamage test`, from the start of the process to its end. The separate tests are all
alike, so one of them is timed in each pair and counted ten times; its counts have to be, bit for
bit, those that the run's test gives for that checkpoint.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import drawn
from benchmarks.pairs import compare, seconds
from cardamage.evaluation.results import read_result
from cardamage.runs.paths import RunPaths

CHECKPOINTS = 10
CONFIG = """\
data:
  source: synthetic
  synthetic: {{images: {images}, size: {px}}}
  classes: [scratch, dent, broken lamp]
  image_size: [{px}, {px}]
  split: {{shares: [0.08, 0.08, 0.84]}}
model: {{name: {network}}}
train: {{epochs: {epochs}, batch_size: 8, mixed_precision: auto}}
test: {{batch_size: 16}}
"""


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=250, help="tested; default: %(default)s")
    parser.add_argument("--image-px", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--network", default="segnet2", help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = CONFIG.format(
            images=round(arguments.images / 0.84),
            px=arguments.image_px,
            network=arguments.network,
            epochs=CHECKPOINTS,
        )
        (folder / "many.yaml").write_text(config)
        for stage in ("pack", "train"):
            drawn.cardamage(folder, stage, "many")
        run = RunPaths(folder / "runs" / "many")

        counts: dict[tuple[str, ...], np.ndarray] = {}

        def test(*words: str) -> float:
            for result in run.test_table("test").parent.glob("*/*.npz"):
                result.unlink()
            for marker in run.root.glob("stages/test*"):
                marker.unlink()
            taken = seconds(lambda: drawn.cardamage(folder, "test", "many", *words))
            counts[words] = read_result(run.test_counts("test", 1)).counts
            return taken

        one = ("--part", f"0/{CHECKPOINTS}")
        compare(
            f"testing {CHECKPOINTS} checkpoints on {arguments.images} images of "
            f"{arguments.image_px} px, {arguments.network}",
            f"{CHECKPOINTS} tests of one checkpoint",
            "<= 0.35",
            test,
            lambda: CHECKPOINTS * test(*one),
            measured_in="s",
            packages=("torch", "accelerate"),
        )
        if not np.array_equal(counts[()], counts[one]):
            sys.exit("tested alone, a checkpoint has other counts")


if __name__ == "__main__":
    main()
