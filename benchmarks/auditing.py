"""Images a second of an audit, beside bare hashing and decoding of the same files.

    python -m benchmarks.auditing
    python -m benchmarks.auditing --source data/cars

The audit also reads the annotations, paints every one, and looks for copies. Both work in as many
processes as there are cores, which start within the time.
"""

import argparse
import hashlib
import io
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from benchmarks import drawn
from benchmarks.packing import DRAWN, large_export
from benchmarks.pairs import compare, seconds
from cardamage.data.curation.audit import audit
from cardamage.system.processes import count_cores


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="a folder of an export; default: drawn")
    parser.add_argument("--images", type=int, default=1983, help="when drawn; default: %(default)s")
    parser.add_argument(
        "--photo-px", type=int, default=640, help="when drawn; default: %(default)s"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = arguments.source
        if source is None:
            few = drawn.export(folder / "drawn", images=DRAWN, size=arguments.photo_px)
            source = large_export(folder / "large", few, arguments.images)
        photos = sorted(path for path in source.glob("**/*") if path.suffix in (".jpg", ".png"))
        compare(
            f"audit of {len(photos):,} photos",
            "hashing and decoding by Pillow",
            ">= 0.6",
            lambda: len(photos) / seconds(partial(audit, source)),
            lambda: len(photos) / seconds(partial(bare, photos)),
            measured_in="images/s",
            packages=("pillow", "pycocotools"),
        )


def bare(photos: list[Path]) -> None:
    """Hash and decode, in as many processes as there are cores."""
    with ProcessPoolExecutor(count_cores(), get_context("spawn")) as processes:
        list(processes.map(hash_and_decode, photos, chunksize=32))


def hash_and_decode(photo: Path) -> None:
    """Hash and decode one photo."""
    content = photo.read_bytes()
    hashlib.sha256(content).digest()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB")


if __name__ == "__main__":
    main()
