"""`cardamage train`, with the samples that every step really consumed written down.

Each process appends to ``logs/samples-rank<rank>.jsonl`` of its run: a line holds the ``step`` and
the ``keys`` of one micro-batch, the ``first`` of which stands at that place in the global batch.
Steps repeated after a kill are there again.
"""

import json
import os
import sys
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from cardamage.cli import main
from cardamage.training import train

PROGRAM = "tests/helpers/recorded_train.py"


def samples_file(run, rank):
    """Where the process ``rank`` writes down what it consumes."""
    return run.logs / f"samples-rank{rank}.jsonl"


class Recorder:
    """Stands between the loop and its batches, and counts which step asks for which."""

    def __init__(self):
        self._splits, self._step, self._clock = (
            train.packed_splits,
            train.train_step,
            train.EpochClock,
        )

    def packed_splits(self, run, *args):
        readers = self._splits(run, *args)
        self._keys = readers[0].keys
        self._path = samples_file(run, int(os.environ.get("RANK", "0")))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return readers

    def train_step(self, training, plan, *args, **options):
        self._at, self._micro_batches = training.step, iter(plan.micro_batches)
        self._step(training, plan, *args, **options)

    def clock(self, batches, *earlier):
        clock = self._clock(batches, *earlier)
        next_batch = clock.next_batch

        def recorded():
            batch = next_batch()
            keys = self._keys[batch.samples].tolist()
            first = next(self._micro_batches).start
            line = json.dumps({"step": self._at, "first": first, "keys": keys})
            with self._path.open("ab", buffering=0) as stream:  # at once: no kill tears a line
                stream.write(line.encode() + b"\n")
            return batch

        clock.next_batch = recorded
        return clock


if __name__ == "__main__":
    recorder = Recorder()
    with patch.multiple(
        train,
        packed_splits=recorder.packed_splits,
        train_step=recorder.train_step,
        EpochClock=recorder.clock,
    ):
        main(["train", *sys.argv[1:]])
