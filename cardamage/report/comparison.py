"""The report that compares several runs."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import compress
from math import isfinite, nan
from pathlib import Path
from typing import Any

from cardamage.evaluation.intervals import Estimate, interval
from cardamage.evaluation.metrics import OF_CLASS
from cardamage.report import figures, wording
from cardamage.report.gallery import gallery_of_runs
from cardamage.report.lead import Rival, comparison_answer, headline, leading, rivals_of
from cardamage.report.load import RunResults
from cardamage.report.notices import Notice, comparison_notices, run_notices
from cardamage.report.page import Report, address, render
from cardamage.report.panels import COMPARISON, COSTS, SCORES, SWEEP, illustrate
from cardamage.report.pictures import compared_pictures, picture_sheet, tested_alike
from cardamage.report.repeats import Group, differing, flat_configs, grid_of, group_runs, sweep_of
from cardamage.report.run import class_rows, continues, model_words, optimiser
from cardamage.report.tables import run_table

_CHOSEN = "Each run enters with the epoch that is best by its own rule on the validation split."
_PICKED = "Each checkpoint was named; the number after its @ is the epoch."


def comparison_report(
    runs: Sequence[RunResults],
    notes: Sequence[Notice] = (),
    *,
    folder: Path | None = None,
    others: Sequence[tuple[str, str]] = (),
    search: dict[str, Any] | None = None,
) -> Report:
    """Render the comparison of several runs, each with its chosen checkpoint.

    Runs that differ in the seed or the fold alone are repeats of one setting. Which setting leads
    is decided as the epoch of each run is: by the validation score of the first run's rule, on
    average over the repeats, never by the test split. Where a checkpoint was named
    (:meth:`RunResults.at`), the curves over the epochs are left out: a run may then be there
    several times.

    Args:
        folder: where the report will lie, for links to those of the runs.
        others: name and address of further reports of the same study.
        search: what :func:`cardamage.report.search.search_section` tells of the search that the
            runs are the finalists of; one alone is reported, too.

    Raises:
        DataError: a shard is damaged.
        RunError: kept maps do not fit the shards.
    """
    labels = labels_of(runs)
    prefix = wording.common_beginning(labels)
    names = [label.removeprefix(prefix) for label in labels]
    select_by = runs[0].experiment.test.select_by
    groups = group_runs(runs, labels)
    leader = leading(groups, select_by)
    best = groups[leader].numbers[groups[leader].best(select_by)]
    splits = {results.experiment.test.split for results in runs}
    split = splits.pop() if len(splits) == 1 else "tested"
    is_picked = any(results.is_picked for results in runs)
    has_costs = any(results.cost.seconds for results in runs) and not is_picked
    panels = (SCORES, *(() if is_picked else COMPARISON), *((COSTS,) if has_costs else ()))
    named = len(figures.named_runs(runs))
    grey = f" Grey: all but the {named} best on the validation split." * (named < len(runs))
    drawn = {
        panel.name: illustrate(panel, runs, names, select_by=select_by, split=split, grey=grey)
        for panel in panels
    }
    if not is_picked and (sweep := sweep_of(groups)):
        panel = replace(SWEEP, draw=partial(SWEEP.draw, select_by=select_by))
        words = {"split": split, "key": sweep.key}
        drawn["sweep"] = illustrate(panel, sweep, groups[leader], select_by=select_by, **words)
    pictures = compared_pictures(runs)
    files = {name: figure.wide for name, figure in drawn.items()}
    if pictures:
        files["pictures"] = picture_sheet(pictures, names, runs[0].result.class_names)
    notices = [*comparison_notices(runs, labels), *notes]
    is_fair = all(notice.level != "warning" for notice in notices)
    rivals, unpaired = rivals_of(groups, leader)
    columns = runs[leader].columns
    alike = [tested_alike(runs[best], results) for results in runs]
    context = {
        "title": f"Comparison of {', '.join(labels)}",
        "names": names,
        "prefix": prefix,
        "is_picked": is_picked,
        "entering": _PICKED if is_picked else _CHOSEN,
        "leader": groups[leader].label,
        "headline": headline(groups[leader], rivals, select_by)
        if is_fair
        else "These scores do not compare",
        "answer": comparison_answer(
            groups, labels, leader, rivals=rivals, unpaired=unpaired, select_by=select_by
        )
        if is_fair
        else None,
        "select_by": select_by,
        "notices": notices,
        "split": split,
        "run_notices": grouped_notices(runs, labels),
        "columns": columns,
        "class_columns": list(OF_CLASS),
        "groups": _group_rows(groups, columns, select_by, leader if is_fair else None),
        "has_repeats": len(groups) < len(runs),
        "has_energy": any(results.cost.joules is not None for results in runs),
        "grid": None if is_picked else _grid(groups, select_by, leader if is_fair else None),
        "rows": [
            {
                "label": label,
                "name": names[number],
                "link": _link(results, folder),
                "colour": figures.run_colour(number),
                "words": _words(results),
                "validation": _validation(results, select_by),
                "estimates": [results.intervals[results.best][column] for column in columns],
                "is_leader": is_fair and number == best,
                "cost": results.cost,
            }
            for number, (label, results) in enumerate(zip(labels, runs, strict=True))
        ],
        "classes": _class_lines(runs),
        "pictures": pictures,
        "gallery": gallery_of_runs(
            list(compress(runs, alike)), list(compress(names, alike)), sum(alike[:best])
        ),
        "rivals": [_rival_row(rival, columns) for rival in rivals],
        "unpaired": unpaired,
        "images": runs[best].images,
        "differences": differing(flat_configs([results.experiment for results in runs])),
        "origins": differing_origins(runs),
        "others": others,
        "search": search,
        "illustrations": drawn,
    }
    return render("comparison", context, files, {"runs": run_table(runs, labels, columns)})


def labels_of(runs: Sequence[RunResults]) -> list[str]:
    """What each run is called: the name of its directory, or the whole path where two are equal.

    The epoch follows where the checkpoint was named, as in ``e6@2``.
    """
    roots = {results.run.root.resolve() for results in runs}
    names = [root.name for root in roots]
    labels = []
    for results in runs:
        name = results.run.root.resolve().name
        label = name if names.count(name) == 1 else str(results.run.root)
        labels.append(f"{label}@{results.best}" if results.is_picked else label)
    return labels


def grouped_notices(
    runs: Sequence[RunResults], labels: Sequence[str]
) -> list[tuple[str, list[tuple[str, Notice]]]]:
    """The warnings of the runs, each once: those that differ in their numbers alone are one.

    Returns:
        Whose each is, in words, and the warning as each of these runs words it.
    """
    gathered: dict[str, list[tuple[str, Notice]]] = {}
    for label, results in zip(labels, runs, strict=True):
        for notice in run_notices(results):
            if notice.level == "warning":
                gathered.setdefault(re.sub(r"\d+", "0", notice.text), []).append((label, notice))
    found = []
    for told in gathered.values():
        owners = list(dict.fromkeys(label for label, _ in told))
        whose = f"all {len(runs)}" if len(owners) == len(runs) > 2 else wording.listed(owners)
        found.append((whose, told))
    return found


def _group_rows(
    groups: Sequence[Group], columns: Sequence[str], select_by: str, leader: int | None
) -> list[dict[str, Any]]:
    rows = []
    for number, group in enumerate(groups):
        sampled = group.sampled()
        seconds = [s for run in group.runs if (s := run.cost.seconds) is not None]
        rows.append(
            {
                "label": group.label,
                "runs": len(group.runs),
                "validation": group.validation(select_by),
                "spread": group.spread(select_by),
                "estimates": [
                    interval(sampled, column) if sampled else Estimate(nan, nan, nan)
                    for column in columns
                ],
                "tested_spread": group.tested_spread(select_by),
                "seconds": sum(seconds) if seconds else None,
                "is_leader": number == leader,
            }
        )
    return rows


def _grid(groups: Sequence[Group], select_by: str, leader: int | None) -> dict[str, Any] | None:
    """A sweep's grid: of each cell the mean validation score, and how dark it is, 0..1."""
    grid = grid_of(groups)
    if grid is None:
        return None
    values = [group.validation(select_by) for group in groups]
    defined = [value for value in values if isfinite(value)]
    low, high = min(defined, default=0.0), max(defined, default=1.0)

    def cell(number: int | None) -> dict[str, Any] | None:
        if number is None:
            return None
        value = values[number] if isfinite(values[number]) else low
        share = (value - low) / (high - low) if high > low else 0.5
        return {
            "value": values[number],
            "spread": groups[number].spread(select_by),
            "runs": len(groups[number].runs),
            "share": 1 - share if select_by == "loss" else share,
            "is_leader": number == leader,
        }

    return {
        "row_key": grid.row_key,
        "column_key": grid.column_key,
        "columns": grid.columns,
        "rows": [
            (value, [cell(number) for number in cells])
            for value, cells in zip(grid.rows, grid.cells, strict=True)
        ],
    }


def _rival_row(rival: Rival, columns: Sequence[str]) -> dict[str, Any]:
    return {
        "label": rival.label,
        "differences": [
            (rival.differences[column], rival.p[column], rival.is_certain(column))
            for column in columns
        ],
    }


def _origin(results: RunResults) -> dict[str, str]:
    """Code, data and versions by a name, where the run's files tell them."""
    known = results.provenance
    git, packages = (
        part if isinstance(part := known.get(key), dict) else {} for key in ("git", "packages")
    )
    patch = str(git.get("patch") or "")
    changes = hashlib.sha256(patch.encode()).hexdigest()[:8] if git.get("dirty") else "none"
    found = {
        "commit": str(git["commit"])[:12] if git.get("commit") else None,
        "uncommitted changes, hash": changes if git else None,
        "host": known.get("host"),
        "python": known.get("python"),
        **{f"{name}, version": version for name, version in packages.items()},
        "dataset fingerprint": results.result.fingerprint[:12],
        "images tested": results.images,
    }
    return {key: str(value) for key, value in found.items() if value is not None}


def differing_origins(runs: Sequence[RunResults]) -> dict[str, list[str]]:
    """In what code, data and versions differ, of what more than one run's files tell."""
    found = differing([_origin(results) for results in runs])
    return {key: row for key, row in found.items() if len({*row} - {wording.UNDEFINED}) > 1}


def _link(results: RunResults, folder: Path | None) -> str | None:
    """The address of a run's own report as seen from a folder; None where there is none."""
    page = results.run.report / "index.html"
    if folder is None or not page.is_file():
        return None
    return address(page, folder)


def _words(results: RunResults) -> str:
    """What a run is, in small print."""
    words = f"{model_words(results)}, {optimiser(results)}; epoch {results.best} of "
    words += str(len(results.epochs))
    return f"{words}, continues {source}" if (source := continues(results)) else words


def _class_lines(runs: Sequence[RunResults]) -> list[list[dict[str, Any]]]:
    """Of each class the scores in every run; none where the runs have other classes."""
    if len({results.result.class_names for results in runs}) > 1:
        return []
    return [list(lines) for lines in zip(*map(class_rows, runs), strict=True)]


def _validation(results: RunResults, select_by: str) -> float:
    column = f"val_{select_by}"
    return results.validation(select_by, results.best) if column in results.metrics else nan
