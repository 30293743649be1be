"""The page over all runs of a folder: how each stands, its scores, its cost, links to its report.

Made from tables and markers alone, so it takes moments; runs that are unfinished, failed or damaged
are rows like the others, and say so.
"""

import json
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from cardamage.config import loading
from cardamage.errors import CLOSED, CheckpointError, ConfigError, RunError, UserError
from cardamage.report.cost import Cost, read_cost
from cardamage.report.page import render_page
from cardamage.report.repeats import flat_configs
from cardamage.runs.checkpoints import best_epoch
from cardamage.runs.directory import as_tested
from cardamage.runs.lookup import run_names
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import is_study
from cardamage.runs.tables import read_table
from cardamage.system.files import write_text

SCORES = ("miou", "mdice", "dice_fg", "dice", "loss")
"""Test scores of the best checkpoint that have a column."""


@dataclass(frozen=True)
class IndexRow:
    """One run of the page; NaN and None where its files do not tell.

    Attributes:
        state: ``done``, or the first stage that is not and how it stands.
        problem: why its files cannot be read, or why a stage failed.
        link: to its report, relative to the page.
        log: of the stage that failed, likewise.
        best: its best epoch by ``select_by``, whose validation score is ``validation``.
        scores: of :data:`SCORES`, on the split it was tested on.
        when: when a stage of it began or ended last, ISO 8601.
        config: every setting by dotted key.
    """

    name: str
    state: str
    problem: str | None = None
    link: str | None = None
    log: str | None = None
    model: str = ""
    select_by: str = ""
    epochs: int = 0
    best: int | None = None
    validation: float = nan
    scores: tuple[float, ...] = (nan,) * len(SCORES)
    cost: Cost = field(default_factory=Cost)
    when: str | None = None
    config: dict[str, str] | None = None


def write_index(runs_dir: Path) -> Path:
    """Write ``index.html`` over all runs of a folder; returns its path.

    Raises:
        ConfigError: there are no runs in the folder.
        RunError: the page cannot be written.
    """
    names = run_names(runs_dir)
    if not names:
        raise ConfigError(f"there are no runs in {runs_dir.absolute()}; name another --runs-dir")
    studies = [name for name in names if is_study(runs_dir / name)]
    rows = [read_row(RunPaths(runs_dir / name)) for name in names if name not in studies]
    configs = {row.name: row.config for row in rows if row.config}
    text = json.dumps(configs).replace("<", "\\u003c").replace("&", "\\u0026")
    context = {
        "title": f"Runs in {runs_dir.absolute().name}",
        "folder": str(runs_dir.absolute()),
        "rows": rows,
        "studies": [(name, _report_of(RunPaths(runs_dir / name))) for name in studies],
        "columns": SCORES,
        "configs": Markup(text),  # noqa: S704 - "<" and "&" are escaped
    }
    page = runs_dir / "index.html"
    try:
        write_text(page, render_page("index", context))
    except CLOSED as error:
        raise RunError(
            f"{page} cannot be written ({error.strerror}); make {runs_dir} writable"
        ) from None
    return page


def read_row(run: RunPaths) -> IndexRow:
    """How a run stands; what cannot be read becomes its ``problem``."""
    name, state, log, when = run.root.name, "damaged", None, None
    report = _report_of(run)
    try:
        records = [read_stage(run, stage) for stage in STAGES]
        waiting = next((record for record in records if record.state != "done"), None)
        state = f"{waiting.stage} {waiting.state}" if waiting else "done"
        failed = next((record for record in records if record.state == "failed"), None)
        problem, log = (failed.error, _link(run, run.log(failed.stage))) if failed else (None, None)
        times = [time for r in records for time in (r.started, r.ended) if time]
        when = max(times, default=None)
        return IndexRow(name, state, problem, report, log, when=when, **_results(run))
    except UserError as error:
        return IndexRow(name, state, str(error), report, log, when=when)


def _results(run: RunPaths) -> dict[str, Any]:
    experiment = as_tested(run, loading.load(run.config))
    select_by = experiment.test.select_by
    found: dict[str, Any] = {
        "model": getattr(experiment.model, "architecture", experiment.model.name),
        "select_by": select_by,
        "config": flat_configs([experiment])[0],
    }
    if not run.metrics.is_file():
        return found
    metrics = read_table(run.metrics)
    found["epochs"] = len(metrics)
    if any(f"val_{select_by}" not in row for row in metrics):
        raise RunError(f"{run.metrics} has no column val_{select_by}; delete the run, or its row")
    best = best_epoch(metrics, select_by)
    if best is None:
        return found
    validation = next(row[f"val_{select_by}"] for row in metrics if row["epoch"] == best)
    try:
        cost = read_cost(run, best)
    except (CheckpointError, RunError):
        cost = Cost()
    found |= {"best": best, "validation": float(validation), "cost": cost}
    table = run.test_table(experiment.test.split)
    tested = {row.get("epoch"): row for row in read_table(table)} if table.is_file() else {}
    row = tested.get(best, {})
    scores = tuple(float(row.get(column, nan)) for column in SCORES)
    return {**found, "scores": scores}


def _report_of(run: RunPaths) -> str | None:
    return _link(run, run.report / "index.html")


def _link(run: RunPaths, file: Path) -> str | None:
    """The address of a run's file as seen from the page; None where it is not there."""
    return quote(file.relative_to(run.root.parent).as_posix()) if file.is_file() else None
