"""How long reports of many runs take, how much memory, and how large the page becomes.

    python -m benchmarks.reporting                       # 20 runs x 10 epochs x 500 images
    python -m benchmarks.reporting --runs 2 --images 60  # a quick look

Draws finished runs in a temporary folder, then reports on one of them and compares all, each in a
process of its own. Where Chromium and playwright are there, it also opens the pages and tells when
they answer. Prints one line for each; exits with 1 where a bar is missed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.finished_runs import make_run

SECONDS, MEMORY, BYTES, ANSWER_SECONDS = 60, 2**30, 30_000_000, 2.0


def draw(folder: Path, *, runs: int, epochs: int, images: int, size: int) -> list[Path]:
    """Finished runs of drawn results; every predicted map is kept.

    Drawing takes minutes, so there are two, one weak and one strong, and the others are copies.
    """
    roots = [folder / f"run-{number:02d}" for number in range(runs)]
    for number, root in enumerate(roots):
        if number > 1:
            shutil.copytree(roots[number % 2], root)
            config = root / "config.yaml"
            config.write_text(config.read_text().replace(roots[number % 2].name, root.name))
            continue
        level = 0.5 + 0.4 * number
        make_run(root, epochs=epochs, images=images, size=size, overlays=images, level=level)
    return roots


def measure(name: str, words: list[str], page: Path) -> bool:
    """Run `cardamage report` with these words; whether it stays within the bars."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "cardamage", "report", *words])
    _, status, usage = os.wait4(process.pid, 0)
    seconds, memory = time.monotonic() - began, usage.ru_maxrss * 1024
    of_processor = usage.ru_utime + usage.ru_stime
    if status:
        raise SystemExit(f"{name}: cardamage report ended with {os.waitstatus_to_exitcode(status)}")
    answered = opened(page)
    print(
        f"{name}: {seconds:.1f} s ({of_processor:.1f} s of processor time), "
        f"at most {memory / 2**20:.0f} MiB, page {page.stat().st_size / 1e6:.1f} MB"
        + (f", answers after {answered:.2f} s" if answered is not None else "")
    )
    return (
        of_processor <= SECONDS  # other work on the machine does not count
        and memory <= MEMORY
        and page.stat().st_size <= BYTES
        and (answered or 0) <= ANSWER_SECONDS
    )


def opened(page: Path) -> float | None:
    """Seconds until the page in headless Chromium has sorted its gallery on request."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may be absent
    except ImportError:
        return None
    if not chromium:
        return None
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        began = time.monotonic()
        tab.goto(page.as_uri())
        tab.locator(".controls [name=sort]").select_option("best")
        tab.locator(".shots li").first.wait_for()
        seconds = time.monotonic() - began
        browser.close()
    return seconds


def main() -> None:
    """Draw, measure, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, default in (("runs", 20), ("epochs", 10), ("images", 500), ("size", 240)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", type=Path, help="draw here, and keep it for another time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        roots = sorted(folder.glob("run-*"))
        if not roots:
            roots = draw(
                folder, runs=asked.runs, epochs=asked.epochs, images=asked.images, size=asked.size
            )
        out = folder / "compared"
        names = list(map(str, roots))
        kept = [
            measure("one run", names[:1], roots[0] / "report" / "index.html"),
            measure(f"{len(roots)} runs", [*names, "--out", str(out)], out / "index.html"),
        ]
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
