"""The first batch after resuming at 90 % of an epoch of a million samples, beside that at 0 %.

    python -m benchmarks.resuming

From a loader and an order that know nothing yet to a batch in memory. The shards hold few samples,
which stand for all: sample n is sample n modulo their number.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import drawn
from benchmarks.pairs import compare, seconds
from cardamage.data.shards.loader import Request, load
from cardamage.data.shards.order import batch_at, epoch_order
from cardamage.data.shards.reader import ShardReader

SAMPLES, BATCH = 1_000_000, 16


def main() -> None:
    """Measure, and tell."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as name:
        shards = drawn.shards(Path(name), images=60, size=96)

        def from_share(share: float) -> Callable[[], float]:
            return partial(seconds, partial(first_batch, shards, int(share * SAMPLES) // BATCH))

        compare(
            "first batch after resuming at 90 % of a 1,000,000-sample epoch",
            "at 0 %",
            "<= 1.1",
            from_share(0.9),
            from_share(0.0),
            measured_in="s",
            pairs=11,
            packages=("numpy", "pillow"),
        )


def first_batch(shards: Path, step: int) -> None:
    """Open the shards and load the batch of a step."""
    epoch_order.cache_clear()
    with ShardReader(shards, "train") as reader:

        def request(step: int) -> Request:
            samples, epochs = batch_at(0, SAMPLES, BATCH, step)
            return samples % len(reader), epochs

        batches = load(reader, map(request, range(step, step + 1)), workers=2)
        next(batches)
        batches.close()


if __name__ == "__main__":
    main()
