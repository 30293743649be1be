"""Samples a second of the loader, beside three others and beside bare decoding.

    python -m benchmarks.loading                          drawn shards
    python -m benchmarks.loading --shards shards/cars-0123456789ab --split train

All read the same JPEG and PNG files and give batches of uint8 images and masks in memory. The
others get what their documentation advises for local data, and each the number of worker processes
that it is quickest with here. Ours reads in training's order; the others go from shard to shard,
which is easier. Each loader has a process of its own, for iterators of several in one process block
each other. Bare decoding holds all files in memory, decodes with simplejpeg and OpenCV in as many
threads as there are cores, and makes no batches.
"""

import argparse
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from benchmarks import drawn
from benchmarks.packing import DRAWN, large_export
from benchmarks.pairs import compare
from benchmarks.peers import peer, version_of
from benchmarks.served import Served, answer
from cardamage.data.shards.loader import load
from cardamage.data.shards.order import batch_at
from cardamage.data.shards.pack import pack
from cardamage.data.shards.reader import ShardReader
from cardamage.system.processes import count_cores

BATCH = 16
Pair = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Measure each, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, help="a shard folder; default: drawn")
    parser.add_argument("--split", default="train", help="default: %(default)s")
    parser.add_argument("--image-px", type=int, default=240, help="default: %(default)s")
    parser.add_argument("--samples", type=int, default=1000, help="a time; default: %(default)s")
    parser.add_argument("--serve", choices=LOADERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments.shards = arguments.shards or packed(folder, arguments)
        for module, package in PACKAGES.values():
            peer(module, package)
        served = {name: Loader(name, arguments) for name in LOADERS}  # all begin at once
        for each in served.values():
            each.choose_workers()
        ours = served.pop("ours")
        px = arguments.image_px
        for loader, other in served.items():
            if loader == "bare":
                claim, against, bar = "loader, beside decoding alone", "bare decoding", ">= 0.8"
                against += f" by {version_of('simplejpeg')}, {version_of('opencv-python-headless')}"
            else:
                package = PACKAGES.get(loader, ("", "webdataset"))[1]
                claim, against, bar = f"loader, {px} px", f"{version_of(package)}", ">= 2.0"
                against += f", {other.workers} workers"
            compare(
                claim,
                against,
                bar,
                ours.rate,
                other.rate,
                measured_in="samples/s",
                packages=("pillow", "numpy", "torch"),
            )
        for each in (ours, *served.values()):
            each.end()


def packed(folder: Path, arguments: argparse.Namespace) -> Path:
    """Shards whose train split is as long as a measurement, so that no loader has to begin anew."""
    few = drawn.export(folder / "few", images=DRAWN, size=arguments.image_px * 4 // 3)
    export = large_export(folder / "many", few, arguments.samples * 3 // 2)
    return pack(
        export,
        classes=drawn.CLASSES,
        image_size=(arguments.image_px, arguments.image_px),
        shards_dir=folder / "shards",
    )


class Loader:
    """A loader in a process of its own, at the number of workers that is best here."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        options = ("--shards", arguments.shards, "--split", arguments.split)
        self._served = Served("benchmarks.loading", name, *options, "--samples", arguments.samples)
        self._name, self.workers = name, 0

    def choose_workers(self) -> None:
        """Try its numbers of workers, and keep the one it is quickest with."""
        tried = {workers: self._served.ask(workers) for workers in WORKERS[self._name]}
        self.workers = max(tried, key=lambda workers: tried[workers])

    def rate(self) -> float:
        """Samples a second, measured now."""
        return self._served.ask(self.workers)

    def end(self) -> None:
        """End the process."""
        self._served.end()


def serve(arguments: argparse.Namespace) -> None:
    """Answer each number of workers with samples a second, once the first batch is there."""
    torch.set_num_threads(1)
    with ShardReader(arguments.shards, arguments.split) as reader:
        make = LOADERS[arguments.serve](reader)

        def rate(workers: int) -> float:
            with closing(make(workers)) as sizes:
                next(sizes)
                started, seen = time.perf_counter(), 0
                for size in sizes:
                    seen += size
                    if seen >= arguments.samples:
                        break
                return seen / (time.perf_counter() - started)

        answer(rate)


def ours(reader: ShardReader) -> Callable[[int], Iterator[int]]:
    """This project's batches, in training's order; workers are threads."""

    def sizes(workers: int) -> Iterator[int]:
        requests = (batch_at(0, len(reader), BATCH, step) for step in itertools.count())
        for batch in load(reader, requests, workers=workers):
            yield len(batch.images)

    return sizes


def stock_webdataset(reader: ShardReader) -> Callable[[int], Iterator[int]]:
    """Stock WebDataset on the same tars."""
    import webdataset  # noqa: PLC0415

    urls = [str(path) for path in sorted((reader.folder / reader.split).glob("*.tar"))]

    def sizes(workers: int) -> Iterator[int]:
        dataset = (
            webdataset.WebDataset(
                urls, shardshuffle=False, workersplitter=webdataset.split_by_worker
            )
            .repeat()
            .decode("pil")
            .to_tuple("jpg;png", "seg.png")
            .map_tuple(planes, one_plane)
            .batched(BATCH)
        )
        return from_torch(dataset, workers, batch_size=None)

    return sizes


def mosaic_streaming(reader: ShardReader) -> Callable[[int], Iterator[int]]:
    """MosaicML Streaming: the same files in MDS shards, decoded by Pillow as its readers do."""
    streaming = peer("streaming", "mosaicml-streaming")
    folder = tempfile.mkdtemp(dir=reader.folder)
    columns = {"image": "bytes", "mask": "bytes"}
    with streaming.MDSWriter(out=folder, columns=columns) as writer:
        for image, mask in files(reader):
            writer.write({"image": image, "mask": mask})

    class Decoded(streaming.StreamingDataset):
        def __getitem__(self, at: int) -> Pair:
            stored = super().__getitem__(at)
            return decoded(stored["image"], stored["mask"])

    dataset = Decoded(local=folder, batch_size=BATCH, shuffle=False)
    return lambda workers: from_torch(dataset, workers, batch_size=BATCH, again=True)


def lit_data(reader: ShardReader) -> Callable[[int], Iterator[int]]:
    """LitData: the same files in its chunks; it decodes JPEG with torchvision."""
    litdata = peer("litdata", "litdata")
    folder = tempfile.mkdtemp(dir=reader.folder)
    litdata.optimize(
        fn=partial(stored, list(files(reader))),
        inputs=list(range(len(reader))),
        output_dir=folder,
        chunk_bytes="64MB",
        num_workers=1,
        verbose=False,
    )

    dataset = litdata.StreamingDataset(folder, shuffle=False, transform=by_torchvision)

    def sizes(workers: int) -> Iterator[int]:
        loader = litdata.StreamingDataLoader(
            dataset,
            batch_size=BATCH,
            num_workers=workers,
            shuffle=False,
            persistent_workers=workers > 0,
        )
        for _ in itertools.count():
            for images, _ in loader:
                yield len(images)

    return sizes


def by_torchvision(pair: tuple[bytes, bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    """A sample as LitData decodes it: it calls this in its worker processes."""
    image, mask = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in pair)
    return decode_image(image, ImageReadMode.RGB), decode_image(mask, ImageReadMode.GRAY)[0]


def bare(reader: ShardReader) -> Callable[[int], Iterator[int]]:
    """The files, all in memory, decoded by the quickest codecs, into no batch."""
    simplejpeg, cv2 = peer("simplejpeg", "simplejpeg"), peer("cv2", "opencv-python-headless")
    cv2.setNumThreads(0)
    kept = list(files(reader))

    def decode(at: int) -> int:
        image, mask = kept[at % len(kept)]
        simplejpeg.decode_jpeg(image)
        cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_GRAYSCALE)
        return 1

    def sizes(workers: int) -> Iterator[int]:
        with ThreadPoolExecutor(workers) as threads:
            for start in itertools.count(step=256):
                yield sum(threads.map(decode, range(start, start + 256)))

    return sizes


def from_torch(
    dataset: object, workers: int, *, batch_size: int | None, again: bool = False
) -> Iterator[int]:
    """Sizes of the batches of a DataLoader; its worker processes begin again where asked to."""
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0
    )
    for _ in itertools.count() if again else range(1):
        for images, _ in loader:
            yield len(images)


def files(reader: ShardReader) -> Iterator[tuple[bytes, bytes]]:
    """The image and mask files of a split."""
    for number in range(len(reader)):
        yield reader._bytes(number, "image"), reader._bytes(number, "mask")  # noqa: SLF001


def stored(pairs: list[tuple[bytes, bytes]], number: int) -> tuple[bytes, bytes]:
    """One of the pairs: what LitData calls in a process of its own."""
    return pairs[number]


def decoded(image: bytes, mask: bytes) -> Pair:
    """A sample by Pillow."""
    return planes(Image.open(io.BytesIO(image))), np.asarray(Image.open(io.BytesIO(mask)))


def planes(image: object) -> np.ndarray:
    """A PIL image as uint8 of shape (3, H, W)."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def one_plane(image: object) -> np.ndarray:
    """A mask, which decode("pil") turned into RGB, as uint8 of shape (H, W)."""
    return np.ascontiguousarray(np.asarray(image)[..., 0])


LOADERS = {
    "ours": ours,
    "webdataset": stock_webdataset,
    "streaming": mosaic_streaming,
    "litdata": lit_data,
    "bare": bare,
}
PACKAGES = {
    "streaming": ("streaming", "mosaicml-streaming"),
    "litdata": ("litdata", "litdata"),
}
WORKERS = {
    **dict.fromkeys(LOADERS, (0, 1, count_cores())),
    # Without workers it is slower, and leaves threads in its process: a worker that is forked later
    # waits for its copy of them to end, for ever.
    "streaming": tuple(range(1, count_cores() + 1)),
    "bare": (count_cores(),),
}

if __name__ == "__main__":
    main()
