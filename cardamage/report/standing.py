"""The report of a run that is not tested yet: how it stands, whatever its training came to."""

import shlex
from typing import Any

from cardamage.config.experiment import Experiment
from cardamage.errors import counted
from cardamage.report import wording
from cardamage.report.load import CURVES, Trained, load_trained
from cardamage.report.notices import training_notices
from cardamage.report.page import Report, render
from cardamage.report.panels import RUN, illustrate
from cardamage.runs.paths import RunPaths


def standing_report(run: RunPaths, experiment: Experiment) -> Report:
    """Render how a run stands from what training has written so far.

    Raises:
        RunError: no epoch is trained, or a file of the run is damaged.
    """
    trained = load_trained(run, experiment)
    select_by = experiment.test.select_by
    curves = illustrate(RUN[0], trained, select_by=select_by, split="", images="")
    columns = list(dict.fromkeys([select_by, *CURVES]))
    context = {
        "title": f"{experiment.name}: how it stands",
        "run": experiment,
        "headline": f"Not tested yet; best so far: epoch {trained.best}",
        "verdict": _verdict(trained),
        "command": f"cardamage submit {shlex.quote(str(run.root))}",
        "notices": training_notices(trained),
        "stages": [(name, record.state) for name, record in trained.stages.items()],
        "illustrations": [curves],
        "select_by": select_by,
        "best": trained.best,
        "columns": columns,
        "rows": [_row(trained, epoch, columns) for epoch in trained.epochs],
    }
    return render("standing", context, {curves.name: curves.wide})


def _verdict(trained: Trained) -> str:
    record, planned = trained.stages["train"], trained.experiment.train.epochs
    done = f"{len(trained.epochs)} of {counted(planned, 'epoch')} are trained"
    select_by = trained.experiment.test.select_by
    value = wording.score(trained.validation(select_by, trained.best))
    said = f"{done}; epoch {trained.best} has the {wording.rule_words(select_by)} ({value})."
    match record.state:
        case "failed":
            return f"Training failed: {record.error or 'its log says why'}. {said}"
        case "running":
            since = (record.started or "").replace("T", " ")[:16]
            return f"Training is under way since {since} UTC, or was lost. {said}"
        case "done":
            return said
    return f"Training is {record.state}. {said}"


def _row(trained: Trained, epoch: int, columns: list[str]) -> dict[str, Any]:
    return {"epoch": epoch, "scores": [trained.validation(column, epoch) for column in columns]}
