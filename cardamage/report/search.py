"""The part of a study's report that tells of a search: its trials, its rungs, what mattered."""

import json
from typing import Any

from cardamage.report.page import address
from cardamage.runs.paths import StudyPaths
from cardamage.runs.stages import read_stage
from cardamage.search.decide import keep_journal, ranked, reached, scores_at_levels
from cardamage.search.optuna_study import importances
from cardamage.search.record import SearchRecord, levels, rounds_of, trial_run

_METHODS = {"random": "drawn at random", "tpe": "drawn by Optuna's TPE sampler"}


def search_section(study: StudyPaths, record: SearchRecord) -> dict[str, Any]:
    """What the templates show of a search, the best trials first; its journal is written anew.

    Trials are ranked within the last rung they came to, by their best validation score so far.
    Importance is taken at the first rung, which all trials came to.
    """
    keep_journal(study, record)
    settings, found = record.settings, scores_at_levels(study, record)
    epochs = levels(settings)
    order: list[int] = []
    for epoch in reversed(epochs):
        at = {trial: scores[epoch] for trial, scores in enumerate(found) if epoch in scores}
        order += [trial for trial in ranked({**at}, settings) if trial not in order]
    order += [trial for trial in range(len(found)) if trial not in order]
    first = [scores.get(epochs[0]) for scores in found]
    return {
        "method": _METHODS[settings.search.method],
        "trials": len(found),
        "select_by": settings.select_by,
        "keys": [*settings.space],
        "epochs": epochs,
        "rows": [_row(study, record, trial, found[trial]) for trial in order],
        "rungs": [
            {
                "epoch": each.last_epoch,
                "ranked": len(record.entrants(each.number + 1)),
                "kept": [trial_run(study, trial).root.name for trial in trials],
            }
            for each, trials in zip(rounds_of(settings), record.rounds[1:], strict=False)
            if not rounds_of(settings)[each.number].draws
        ],
        "importance": importances(settings, record.values, first),
    }


def _row(
    study: StudyPaths, record: SearchRecord, trial: int, scores: dict[int, float]
) -> dict[str, Any]:
    run, last = trial_run(study, trial), max(scores, default=0)
    page = run.report / "index.html"
    wanted = reached(record, trial)[-1]
    if last == record.settings.epochs:
        end = "trained to the end"
    elif last == wanted:
        end = f"stopped at epoch {last}"
    else:
        end = f"failed on the way to epoch {wanted}: {read_stage(run, 'train').error or 'no score'}"
    return {
        "name": run.root.name,
        "link": address(page, study.report) if page.is_file() else None,
        "values": [_shown(record.values[trial][key]) for key in record.settings.space],
        "scores": [scores.get(epoch) for epoch in levels(record.settings)],
        "end": end,
        "is_finalist": last == record.settings.epochs,
    }


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
