"""How many samples a second the loader gives, beside stock WebDataset on the same shards.

    python benchmarks/loading.py                          drawn shards
    python benchmarks/loading.py --shards shards/cars-0123456789ab --split train

WebDataset decodes with ``decode("pil")``, in this process and in the worker processes of a torch
DataLoader; its images are turned into the same uint8 arrays. Every row is the best of REPEATS.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from machine import describe

from cardamage.data.curation.synthetic import synthesize
from cardamage.data.shards.loader import load
from cardamage.data.shards.order import batch_at
from cardamage.data.shards.pack import pack
from cardamage.data.shards.reader import ShardReader

CLASSES = {name: [name] for name in ("scratch", "dent", "broken lamp")}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, help="a shard folder; default: drawn")
    parser.add_argument("--split", default="train", help="default: %(default)s")
    parser.add_argument(
        "--image-px", type=int, default=240, help="when drawn; default: %(default)s"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--samples", type=int, default=1500, help="a row; default: %(default)s")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe("pillow", "numpy", "torch", "webdataset"))
    with tempfile.TemporaryDirectory() as folder:
        shards = arguments.shards or drawn_shards(Path(folder), arguments.image_px)
        with ShardReader(shards, arguments.split) as reader:
            height, width = reader.image_size
            print(f"{len(reader)} samples of {height}x{width}, batches of {arguments.batch_size}")
            measure(reader, arguments)


def measure(reader: ShardReader, arguments: argparse.Namespace) -> None:
    """Time both loaders at every number of workers, in turn so that they share the weather."""
    print(f"{'workers':>7} {'here /s':>9} {'stock /s':>9} {'ratio':>6}")
    first = None
    for workers in arguments.workers:
        best = {"here": 0.0, "stock": 0.0}
        for _ in range(arguments.repeats):
            best["here"] = max(best["here"], speed(ours(reader, arguments, workers), arguments))
            best["stock"] = max(best["stock"], speed(stock(reader, arguments, workers), arguments))
        ratio = best["here"] / best["stock"]
        print(f"{workers:7} {best['here']:9.0f} {best['stock']:9.0f} {ratio:6.2f}", flush=True)
        first = first or best["here"]
    print(f"{workers} workers to {arguments.workers[0]}: {best['here'] / first:.2f} times as fast")


def speed(batches: Iterator[int], arguments: argparse.Namespace) -> float:
    """Samples a second once the first batch is there: starting up is no part of it."""
    next(batches)
    started, seen = time.perf_counter(), 0
    for size in batches:
        seen += size
        if seen >= arguments.samples:
            break
    return seen / (time.perf_counter() - started)


def ours(reader: ShardReader, arguments: argparse.Namespace, workers: int) -> Iterator[int]:
    """Sizes of this project's batches, in training's order."""
    size = arguments.batch_size
    requests = (batch_at(0, len(reader), size, step) for step in itertools.count())
    for batch in load(reader, requests, workers=workers):
        yield len(batch.images)


def stock(reader: ShardReader, arguments: argparse.Namespace, workers: int) -> Iterator[int]:
    """Sizes of stock WebDataset's batches, shard after shard."""
    urls = [str(path) for path in sorted((reader.folder / reader.split).glob("*.tar"))]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=False, workersplitter=webdataset.split_by_worker)
        .repeat()
        .decode("pil")
        .to_tuple("jpg;png", "seg.png")
        .map_tuple(as_planes, as_mask)
        .batched(arguments.batch_size)
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers)
    for images, _ in loader:
        yield len(images)


def as_planes(image: object) -> np.ndarray:
    """A PIL image as uint8 of shape (3, H, W)."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def as_mask(image: object) -> np.ndarray:
    """A mask, which decode("pil") turned into RGB, as uint8 of shape (H, W)."""
    return np.ascontiguousarray(np.asarray(image)[..., 0])


def drawn_shards(folder: Path, image_px: int) -> Path:
    """A drawn export, packed."""
    synthesize(folder / "drawn", images=400, size=max(image_px, 320), seed=0)
    size = (image_px, image_px)
    return pack(folder / "drawn", classes=CLASSES, image_size=size, shards_dir=folder / "shards")


if __name__ == "__main__":
    main()
