"""What is in a COCO export and what is wrong with it: `python jobs/audit.py SOURCE`.

With ``--config`` the classes of an experiment are counted instead of the categories. Ends with 0
when the export can be packed, warnings or not, and with 2 when it has errors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cardamage.config import load
from cardamage.console import start_logging
from cardamage.data.audit import Audit, SplitCounts, audit
from cardamage.data.findings import Severity
from cardamage.errors import DataError, run_program
from cardamage.paths import RunPaths

_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}
_WIDTH = 120  # where the output is no terminal


def main() -> None:
    """Parse the command line, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder or .zip with train/, valid/, test/")
    parser.add_argument("--config", type=Path, help="count the classes of this YAML file or run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    start_logging()
    if arguments.config:
        data = load(_config_in(arguments.config)).data
        result = audit(arguments.source, classes=data.class_groups, drop=data.drop)
    else:
        result = audit(arguments.source)
    if arguments.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        _print(result, classes=arguments.config is not None)
    if errors := result.errors:
        kinds = "1 kind of error" if len(errors) == 1 else f"{len(errors)} kinds of errors"
        raise DataError(f"{result.source} has {kinds}, first: {errors[0].message}")


def _config_in(target: Path) -> Path:
    """The config's file; a YAML file need not agree with a run of its name."""
    return RunPaths(target).config if target.is_dir() else target


def _print(result: Audit, *, classes: bool) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(Text(str(result.source), style="bold"))
    if result.splits:
        console.print(_split_table(result.splits))
        console.print(_category_table(result.splits, "Classes" if classes else "Categories"))
        roots = ", ".join(f'"{name}"' for name in result.unused_roots)
        console.print(Text(f"Unused root categories, left out by themselves: {roots or 'none'}"))
    if all(finding.severity == "note" for finding in result.findings):
        console.print("Nothing is wrong.")
    for finding in result.findings:
        severity = (f"{finding.severity:9}", _STYLES[finding.severity])
        text = Text.assemble(severity, (f"{finding.kind}: ", "bold"), finding.message)
        console.print(text, soft_wrap=True)
        for example in finding.examples[1:] if finding.severity != "note" else ():
            console.print(Text(f"{'':10}also {example}", style="dim"), soft_wrap=True)


def _split_table(splits: dict[str, SplitCounts]) -> Table:
    table = Table(title="Splits", title_justify="left")
    table.add_column("split")
    for heading in ("images", "annotations", "all background", "overlapped pixels", "not painted"):
        table.add_column(heading, justify="right")
    table.add_column("sizes (width x height)")
    for name, counts in splits.items():
        common = list(counts.sizes.items())[:3]
        sizes = ", ".join(f"{size}: {images:,}" for size, images in common)
        more = len(counts.sizes) - len(common)
        table.add_row(
            name,
            f"{counts.images:,}",
            f"{counts.annotations:,}",
            f"{counts.images_without_annotations:,}",
            f"{counts.overlapped_pixels:,} ({_share(counts.overlapped_pixels, counts.pixels)})",
            f"{counts.skipped_annotations:,}",
            sizes + (f" and {more} more" if more else ""),
        )
    return table


def _category_table(splits: dict[str, SplitCounts], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("name")
    for heading in ("images", "instances", "pixels"):
        for split in splits:
            table.add_column(f"{split}\n{heading}", justify="right")
    for name in next(iter(splits.values())).categories:
        of_split = [(counts, counts.categories[name]) for counts in splits.values()]
        table.add_row(
            Text(name),
            *(f"{category.images:,}" for _, category in of_split),
            *(f"{category.instances:,}" for _, category in of_split),
            *(_share(category.pixels, counts.pixels) for counts, category in of_split),
        )
    return table


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


if __name__ == "__main__":
    run_program(main)
