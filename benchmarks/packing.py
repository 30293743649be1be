"""Images a second of packing, beside a plain script and beside codecs alone; and its memory.

    python -m benchmarks.packing
    python -m benchmarks.packing --images 2000 --source data/cars

Packs an export whose images are a few photos of SOURCE (or drawn ones), each shifted otherwise so
that none is a copy of another: a large dataset can be measured without one. The plain script is
what one writes by hand with Pillow and pycocotools: the same masks, one process, one file a sample.
Codecs alone means decoding, resizing and encoding by simplejpeg and OpenCV, in as many processes as
there are cores. Memory is the sum over the processes of what each holds for itself (PSS).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from benchmarks import drawn
from benchmarks.pairs import compare, hold, seconds
from benchmarks.peers import peer, version_of
from cardamage.data.shards.pack import pack
from cardamage.runs.paths import SPLITS
from cardamage.system.processes import count_cores

DRAWN = 16
"""Photos that are drawn, which takes long; the others are made of them."""

MANY_PX = 64
"""Side of the photos that memory is measured with: their number matters, not their size."""


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--photo-px", type=int, default=640, help="side; default: %(default)s")
    parser.add_argument("--image-px", type=int, default=240, help="as packed; default: %(default)s")
    parser.add_argument("--source", type=Path, help="an export to take photos from; else drawn")
    parser.add_argument("--few", type=int, default=1_000, help="for memory; default: %(default)s")
    parser.add_argument("--many", type=int, default=50_000, help="for memory; default: %(default)s")
    parser.add_argument("--pack", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--naive", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pack:
        run_packing(*arguments.pack, arguments.image_px)
        return
    if arguments.naive:
        run_naive(*arguments.naive, arguments.image_px)
        return
    peer("simplejpeg", "simplejpeg"), peer("cv2", "opencv-python-headless")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_speed(folder, arguments)
        measure_memory(folder, arguments)


def measure_speed(folder: Path, arguments: argparse.Namespace) -> None:
    """Compare with the plain script and with the codecs, each in processes of its own."""
    source = arguments.source or drawn.export(
        folder / "drawn", images=DRAWN, size=arguments.photo_px
    )
    export = large_export(folder / "large", source, arguments.images)
    outs = (folder / f"out-{number}" for number in range(1_000_000))

    def rate(how: str) -> float:
        taken = seconds(lambda: finish(started(how, export, next(outs), arguments.image_px)))
        return arguments.images / taken

    cores = count_cores()
    what = f"packing {arguments.images} photos of {arguments.photo_px} px to {arguments.image_px}"
    tell = partial(compare, measured_in="images/s", packages=("pillow", "pycocotools"))
    tell(
        f"{what}, {cores} processes",
        "a plain script, one process",
        ">= 4.0",
        partial(rate, "--pack"),
        partial(rate, "--naive"),
    )
    codecs = f"{version_of('simplejpeg')} and {version_of('opencv-python-headless')} alone"
    photos = [path.read_bytes() for path in sorted(export.glob("*/*.jpg"))]
    with ProcessPoolExecutor(cores, get_context("spawn")) as processes:
        size = (arguments.image_px, arguments.image_px)
        parts = [photos[number::cores] for number in range(cores)]
        list(processes.map(partial(code, size=size), [part[:2] for part in parts]))

        def coded() -> float:
            return len(photos) / seconds(
                lambda: list(processes.map(partial(code, size=size), parts))
            )

        tell(f"{what}, beside codecs", codecs, ">= 0.7", partial(rate, "--pack"), coded)


def measure_memory(folder: Path, arguments: argparse.Namespace) -> None:
    """Compare the memory for few photos and for many."""
    source = drawn.export(folder / "small", images=DRAWN, size=MANY_PX)
    few, many = (
        large_export(folder / f"of-{count}", source, count)
        for count in (arguments.few, arguments.many)
    )

    def peak_mib(export: Path) -> float:
        out = folder / f"memory-{export.name}"
        return watch_memory(started("--pack", export, out, 32)) / 2**20

    packages = ("pillow", "numpy")
    claim, unit = f"memory of packing {arguments.many:,} photos", "MiB"
    result = hold(
        claim, "<= 1024", partial(peak_mib, many), unit=unit, repeats=1, packages=packages
    )
    hold(
        f"{claim}, more than of {arguments.few:,}",
        "<= 200",
        lambda: result.median - peak_mib(few),
        unit=unit,
        repeats=1,
        packages=packages,
        note="the annotations of all photos are held",
    )


def started(how: str, export: Path, out: Path, image_px: int) -> subprocess.Popen:
    """A process that packs, or does it by hand."""
    command = [sys.executable, "-m", "benchmarks.packing", how, export, out]
    command += ["--image-px", image_px]
    return subprocess.Popen(
        [*map(str, command)], env=drawn.environment(), stdout=subprocess.DEVNULL
    )


def finish(process: subprocess.Popen) -> None:
    """Wait for a process, which has to succeed."""
    if status := process.wait():
        sys.exit(f"a process that packs ended with {status}")


def run_packing(export: Path, out: Path, image_px: int) -> None:
    """Pack as users do."""
    size = (image_px, image_px)
    pack(
        export, classes={name: [name] for name in names_in(export)}, image_size=size, shards_dir=out
    )


def names_in(export: Path) -> list[str]:
    """The categories that are used."""
    content = json.loads((export / "train" / "_annotations.coco.json").read_text())
    used = {annotation["category_id"] for annotation in content["annotations"]}
    return [category["name"] for category in content["categories"] if category["id"] in used]


def run_naive(export: Path, out: Path, image_px: int) -> None:
    """Pack as a script of some lines does: one file a sample, masks by ``annToMask``."""
    from pycocotools.coco import COCO  # noqa: PLC0415

    ids = {name: number for number, name in enumerate(names_in(export), start=1)}
    for split in SPLITS:
        (out / split).mkdir(parents=True)
        coco = COCO(str(export / split / "_annotations.coco.json"))
        names = {number: found["name"] for number, found in coco.cats.items()}
        for number, record in coco.imgs.items():
            with Image.open(export / split / record["file_name"]) as file:
                image = file.convert("RGB").resize((image_px, image_px), Image.BILINEAR)
            mask = np.zeros((record["height"], record["width"]), np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[number])):
                painted = coco.annToMask(annotation)
                mask[painted == 1] = ids[names[annotation["category_id"]]]
            small = Image.fromarray(mask).resize((image_px, image_px), Image.NEAREST)
            image.save(out / split / f"{number:08d}.jpg", quality=95, subsampling=0)
            small.save(out / split / f"{number:08d}.seg.png")


def code(photos: list[bytes], size: tuple[int, int]) -> int:
    """Decode, resize and encode photos, and resize and encode as many masks."""
    simplejpeg, cv2 = peer("simplejpeg", "simplejpeg"), peer("cv2", "opencv-python-headless")
    cv2.setNumThreads(0)
    coded = 0
    for photo in photos:
        image = simplejpeg.decode_jpeg(photo)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        coded += len(simplejpeg.encode_jpeg(small, quality=95, colorsubsampling="444"))
        mask = cv2.resize(image[:, :, 0] & 1, size, interpolation=cv2.INTER_NEAREST)
        coded += len(cv2.imencode(".png", mask)[1])
    return coded


def large_export(folder: Path, source: Path, count: int) -> Path:
    """An export with as many records as asked for, of the few images of another.

    They are shifted, around the edges, so that they look different; outlines stay where they are.
    """
    counts = {"valid": count // 10, "test": count // 10}
    counts["train"] = count - sum(counts.values())
    shifts = np.random.default_rng(0)
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
        content = json.loads((source / split / "_annotations.coco.json").read_text())
        outlines: dict[int, list[dict]] = {}
        for annotation in content["annotations"]:
            outlines.setdefault(annotation["image_id"], []).append(annotation)
        photos = {}
        for image in content["images"]:
            with Image.open(source / split / image["file_name"]) as file:
                photos[image["id"]] = file.convert("RGB")
        images, annotations = [], []
        for number in range(counts[split]):
            image = content["images"][number % len(content["images"])]
            name = f"photo-{number:07d}.jpg"
            photo = photos[image["id"]]
            shifted = ImageChops.offset(photo, *map(int, shifts.integers(photo.size)))
            shifted.save(folder / split / name, quality=90)
            images.append({**image, "id": number, "file_name": name})
            annotations += [{**a, "image_id": number} for a in outlines.get(image["id"], [])]
        for number, annotation in enumerate(annotations):
            annotation["id"] = number
        with (folder / split / "_annotations.coco.json").open("w") as stream:
            json.dump({**content, "images": images, "annotations": annotations}, stream)
    return folder


def watch_memory(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the most bytes it and its children held together."""
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, sum(held_bytes(pid) for pid in family(process.pid)))

    watching = threading.Thread(target=watch)
    watching.start()
    finish(process)
    done.set()
    watching.join()
    return peak


def family(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [pid]
    for one in found:
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text()
        except OSError:
            continue
        found += map(int, children.split())
    return found


def held_bytes(pid: int) -> int:
    """The process's proportional share of the memory it maps; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
