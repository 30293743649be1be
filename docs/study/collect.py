"""Put the tables and figures of studies that were run into this folder.

    python docs/study/collect.py eight=runs/eight/study damage=runs/damage/study_small

Each study is reported anew from its run directories, by `jobs/report.py`. Of every comparison the
tables (`summary.md`) and the curves come here, into a folder of the name before the `=`. Pages and
sheets do not, since they show photos of the dataset.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from cardamage.runs.paths import StudyPaths
from cardamage.runs.study import is_study

HERE = Path(__file__).resolve().parent
REPORT = HERE.parents[1] / "jobs" / "report.py"
FIGURES = ("scores.png", "costs.png", "sweep.png", "validation.png", "tests.png")
PHOTOS = re.compile(r"^## The same images\n.*?(?=^## )", re.DOTALL | re.MULTILINE)


def collect(study: Path, folder: Path) -> int:
    """Copy what each comparison of a study shows; returns how many there are."""
    subprocess.run([sys.executable, REPORT, study], check=True)
    shutil.rmtree(folder, ignore_errors=True)
    report = StudyPaths(study).report
    summaries = sorted(report.glob("**/summary.md"))
    for summary in summaries:
        # The comparison of all runs lies in the report itself.
        place = folder / summary.parent.relative_to(report)
        place.mkdir(parents=True, exist_ok=True)
        text = PHOTOS.sub("", summary.read_text(encoding="utf-8"))
        (place / summary.name).write_text(text, encoding="utf-8")
        for figure in FIGURES:
            if (summary.parent / figure).is_file():
                with Image.open(summary.parent / figure) as image:  # a third of the bytes
                    image.convert("RGB").quantize(64).save(place / figure, optimize=True)
    return len(summaries)


def main() -> None:
    """Collect every study of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=HERE, help="default: the folder of this file")
    parser.add_argument("studies", nargs="+", metavar="NAME=STUDY", help="folder, and where from")
    arguments = parser.parse_args()
    for text in arguments.studies:
        name, _, study = text.partition("=")
        # The folder of that name is emptied, so it has to be one of its own.
        if not re.fullmatch(r"\w[\w.-]*", name) or not is_study(Path(study)):
            parser.error(f"{text}: give it as NAME=STUDY, with the folder of a study that was run")
        print(f"{name}: {collect(Path(study), arguments.into / name)} comparisons")


if __name__ == "__main__":
    main()
