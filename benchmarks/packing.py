"""How fast packing is on one process and on all cores, and how much memory all of them hold.

Packs an export of N records whose image files are hard links to a few photos of SOURCE (or to drawn
ones), so that a large dataset can be measured without one:

    python benchmarks/packing.py --images 50000 --processes 1 2

Memory is the sum over the processes of what each holds for itself (PSS), read from /proc.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from machine import describe

from cardamage.data.coco.export import read_export
from cardamage.data.curation.synthetic import synthesize
from cardamage.data.shards.pack import pack
from cardamage.runs.paths import SPLITS


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--photo-px", type=int, default=640, help="side; default: %(default)s")
    parser.add_argument("--image-px", type=int, default=240, help="as packed; default: %(default)s")
    parser.add_argument("--source", type=Path, help="an export to take photos from; else drawn")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pack", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shards-dir", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pack:
        run_packing(arguments)
        return
    print(describe("pillow", "numpy", "pycocotools"))
    print(f"{arguments.images} images, {arguments.image_px} px as packed")
    with tempfile.TemporaryDirectory() as folder:
        export = write_large_export(Path(folder), arguments)
        size = sum(p.stat().st_size for p in export.glob("*/_annotations.coco.json"))
        print(f"annotation files: {size / 1e6:.0f} MB")
        speeds = {}
        print(f"{'processes':>9} {'seconds':>9} {'images/s':>9} {'peak MiB':>9}")
        for processes in arguments.processes:
            shards_dir = Path(folder) / f"shards-{processes}"
            command = [sys.executable, __file__, "--pack", export, "--shards-dir", shards_dir]
            command += ["--processes", processes, "--image-px", arguments.image_px]
            started = time.perf_counter()
            process = subprocess.Popen([str(part) for part in command])
            peak = watch_memory(process)
            seconds = time.perf_counter() - started
            if process.returncode:
                sys.exit(process.returncode)
            speeds[processes] = arguments.images / seconds
            row = f"{processes:9} {seconds:9.1f} {speeds[processes]:9.1f} {peak / 2**20:9.0f}"
            print(row, flush=True)
    first, last = arguments.processes[0], arguments.processes[-1]
    print(f"{last} processes to {first}: {speeds[last] / speeds[first]:.2f} times as fast")


def run_packing(arguments: argparse.Namespace) -> None:
    """Pack once, in a process of its own so that its memory is its own."""
    export = read_export(arguments.pack)
    used = export.used_categories()
    names = [category.name for category in export.categories if category.id in used]
    del export
    pack(
        arguments.pack,
        classes={name: [name] for name in names},
        image_size=(arguments.image_px, arguments.image_px),
        shards_dir=arguments.shards_dir,
        workers=arguments.processes[0],
    )


def write_large_export(folder: Path, arguments: argparse.Namespace) -> Path:
    """An export with as many records as asked for; its image files are links to a few."""
    source = arguments.source
    if source is None:
        source = folder / "drawn"
        synthesize(source, images=64, size=arguments.photo_px, seed=0)
    export = folder / "large"
    counts = {"valid": arguments.images // 10, "test": arguments.images // 10}
    counts["train"] = arguments.images - sum(counts.values())
    for split in SPLITS:
        (export / split).mkdir(parents=True)
        content = json.loads((source / split / "_annotations.coco.json").read_text())
        outlines: dict[int, list[dict]] = {}
        for annotation in content["annotations"]:
            outlines.setdefault(annotation["image_id"], []).append(annotation)
        images, annotations = [], []
        for number in range(counts[split]):
            image = content["images"][number % len(content["images"])]
            suffix = Path(image["file_name"]).suffix
            name = f"photo-{number:07d}{suffix}"
            (export / split / name).hardlink_to(source / split / image["file_name"])
            images.append({**image, "id": number, "file_name": name})
            annotations += [{**a, "image_id": number} for a in outlines.get(image["id"], [])]
        for number, annotation in enumerate(annotations):
            annotation["id"] = number
        with (export / split / "_annotations.coco.json").open("w") as stream:
            json.dump({**content, "images": images, "annotations": annotations}, stream)
    return export


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
    process.wait()
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
