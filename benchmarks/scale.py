"""How what grows with a dataset grows: the order of samples, the index, the manifest.

    python -m benchmarks.scale
    python -m benchmarks.scale --samples 1000000 10000000

CPU seconds, the least of three, and bytes; docs/scale.md says what follows.
"""

import argparse
import io
import time
from collections.abc import Callable

import numpy as np

from benchmarks.machine import describe
from cardamage.data.shards.manifest import Manifest, ShardRecord, SplitRecord
from cardamage.data.shards.order import batch_at, epoch_order
from cardamage.data.shards.pack import SAMPLES_PER_SHARD
from cardamage.data.shards.tar import INDEX_DTYPE, key_of, lies_inside


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    print(describe("numpy", "pydantic"))
    print("| samples | order s | batch ms | index s | index MB | keys s | manifest s | MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for samples in arguments.samples:
        print(row(samples), flush=True)


def row(samples: int) -> str:
    """What a split of so many samples takes."""

    def order() -> None:
        epoch_order.cache_clear()
        epoch_order(0, samples, 1)

    stream = io.BytesIO()
    np.save(stream, np.zeros(samples, dtype=INDEX_DTYPE))
    index_file = stream.getvalue()

    def index() -> None:
        read = np.load(io.BytesIO(index_file))
        lies_inside(read, np.full(1, 1 << 40, dtype=np.uint64))

    manifest_file = manifest_of(samples).model_dump_json()
    order_s, batch_s = cpu_s(order), cpu_s(lambda: batch_at(0, samples, 16, samples // 32))
    index_s, keys_s = cpu_s(index), cpu_s(lambda: np.array([key_of(n) for n in range(samples)]))
    manifest_s = cpu_s(lambda: Manifest.model_validate_json(manifest_file))
    return (
        f"| {samples:,} | {order_s:.3f} | {1e3 * batch_s:.2f} | {index_s:.3f} | "
        f"{len(index_file) / 1e6:.1f} | {keys_s:.3f} | {manifest_s:.3f} | "
        f"{len(manifest_file) / 1e6:.1f} |"
    )


def manifest_of(samples: int) -> Manifest:
    """A manifest of one split."""
    shards = -(-samples // SAMPLES_PER_SHARD)
    each = ShardRecord(samples=SAMPLES_PER_SHARD, bytes=1_000_000, sha256="ab" * 32)
    split = SplitRecord(
        samples=samples,
        shards=[each] * shards,
        index_sha256="ab" * 32,
        pixels=[1, 1],
        overlapped_pixels=0,
    )
    return Manifest(
        version=1,
        dataset="many",
        fingerprint="ab" * 32,
        class_names=["background", "damage"],
        options={},
        image_size=(240, 240),
        rasteriser="none",
        encoder="none",
        splits={"train": split},
    )


def cpu_s(action: Callable[[], object]) -> float:
    """The least CPU time of three calls, in seconds: other programs matter little to it."""
    times = []
    for _ in range(3):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return min(times)


if __name__ == "__main__":
    main()
