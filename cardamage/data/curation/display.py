"""What an audit found, for a terminal."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cardamage.data.coco.findings import Finding, Severity
from cardamage.data.curation.agreement import Agreement
from cardamage.data.curation.audit import Audit, SplitCounts
from cardamage.data.curation.first_config import class_lines
from cardamage.errors import counted
from cardamage.labels import BACKGROUND

_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}
_WIDTH = 120  # where the output is no terminal


def show(result: Audit, *, classes: bool) -> None:
    """Print the tables and the findings.

    Args:
        classes: whether classes of an experiment were counted, not categories.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    style = "bold red" if result.errors else "bold"
    console.print(Text(f"{result.source}: {result.verdict}", style=style), soft_wrap=True)
    if result.splits:
        console.print(_split_table(result.splits))
        console.print(_category_table(result.splits, "Classes" if classes else "Categories"))
        roots = ", ".join(f'"{name}"' for name in result.unused_roots)
        console.print(Text(f"Unused root categories, left out by themselves: {roots or 'none'}"))
        if agreed := result.agreement:
            _print_agreement(console, agreed)
        if not classes:
            _print_classes(console, result)
    by_kind: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in result.findings:
        by_kind.setdefault((finding.severity, finding.kind), []).append(finding)
    for found in by_kind.values():
        _print_kind(console, found)


def _print_classes(console: Console, result: Audit) -> None:
    """What to paste into an experiment file."""
    names = next(iter(result.splits.values())).categories
    lines = "\n".join(class_lines([name for name in names if name != BACKGROUND]))
    console.print(Text(f"To paste into an experiment file under data:\n{lines}"), soft_wrap=True)


def _print_agreement(console: Console, agreed: Agreement) -> None:
    """How far two labellings of one photo agree: a model cannot be told to be better."""
    pooled = f"{agreed.dice:.2f} (95 % interval {agreed.low:.2f} to {agreed.high:.2f})"
    by_class = ", ".join(f"{name} {dice:.2f}" for name, dice in agreed.classes.items())
    text = f"Label agreement: {counted(agreed.photos, 'photo')} labelled twice or more, Dice "
    each = f"; {by_class}" if len(agreed.classes) > 1 else ""
    console.print(Text(f"{text}{pooled}{each}"), soft_wrap=True)


def _print_kind(console: Console, found: Sequence[Finding]) -> None:
    """What is found of one kind, in each split, and once what to do about it."""
    severity, kind = found[0].severity, found[0].kind
    label, style = f"{severity:9}", _STYLES[severity]
    if len(found) == 1:
        text = Text.assemble((label, style), (f"{kind}: ", "bold"), found[0].message)
        console.print(text, soft_wrap=True)
    else:
        words = "; ".join(filter(None, found[0].words))
        text = Text.assemble((label, style), (f"{kind}: ", "bold"), words)
        console.print(text, soft_wrap=True)
    for finding in found:
        examples = finding.examples if severity != "note" else finding.examples[:1]
        if len(found) > 1:
            total = f" ({finding.count:,} in all)" if finding.count > 1 else ""
            first = f": {examples[0]}" if examples else ""
            console.print(Text(f"{'':9}{finding.split}{first}{total}"), soft_wrap=True)
        for example in examples[1:]:
            console.print(Text(f"{'':10}also {example}", style="dim"), soft_wrap=True)


def _table(title: str, columns: Iterable[str]) -> Table:
    """Names at the left, a column of numbers for each split: it fits 80 characters."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _split_table(splits: dict[str, SplitCounts]) -> Table:
    table = _table("Splits", splits)
    all_counts = splits.values()
    table.add_row("images", *(f"{counts.images:,}" for counts in all_counts))
    table.add_row("annotations", *(f"{counts.annotations:,}" for counts in all_counts))
    table.add_row("without annotations", *(f"{c.images_without_annotations:,}" for c in all_counts))
    table.add_row("all background", *(f"{c.background_images:,}" for c in all_counts))
    table.add_row("overlapped pixels", *(_share(c.overlapped_pixels, c.pixels) for c in all_counts))
    lost = (sum(loss.annotations for loss in c.lost.values()) for c in all_counts)
    table.add_row("annotations lost", *(f"{number:,}" for number in lost))
    table.add_row("sizes (width x height)", *map(_sizes, all_counts))
    return table


def _sizes(counts: SplitCounts) -> str:
    common = list(counts.sizes.items())[:3]
    lines = [f"{size}: {images:,}" for size, images in common]
    more = len(counts.sizes) - len(common)
    return "\n".join([*lines, *([f"and {more} more"] if more else [])])


def _category_table(splits: dict[str, SplitCounts], title: str) -> Table:
    table = _table(title, splits)
    names = list(next(iter(splits.values())).categories)
    lost = any(counts.lost for counts in splits.values())
    for measure in ("images", "instances", *(["lost instances"] if lost else []), "pixels"):
        table.add_row(Text(measure, style="bold"))
        for name in names:
            cells = [_cell(counts, name, measure) for counts in splits.values()]
            table.add_row(Text(f"  {name}"), *cells)
        if measure != "pixels":
            table.add_row()
    return table


def _cell(counts: SplitCounts, name: str, measure: str) -> str:
    if measure == "pixels":
        return _share(counts.categories[name].pixels, counts.pixels)
    if measure == "lost instances":
        return f"{counts.lost[name].annotations:,}" if name in counts.lost else "0"
    return f"{getattr(counts.categories[name], measure):,}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"
