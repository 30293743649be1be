"""The decisions of a search, each a function of what is stored: made twice, they are the same.

Trials are ranked by their best validation score up to a rung; of equal ones the first is better. A
trial that failed for good has no score and does not go on.
"""

import math
from collections.abc import Collection, Sequence

from cardamage.config.search import SearchSettings
from cardamage.errors import RunError, counted
from cardamage.runs.checkpoints import best_epoch
from cardamage.runs.paths import RunPaths, StudyPaths
from cardamage.runs.rung import set_rung
from cardamage.runs.stages import StageRecord, read_stage
from cardamage.runs.tables import read_table
from cardamage.search import optuna_study
from cardamage.search.record import (
    SearchRecord,
    levels,
    read_search,
    rounds_of,
    trial_run,
    write_search,
)


def advance(
    study: StudyPaths, record: SearchRecord, given_up: Collection[RunPaths] = ()
) -> SearchRecord:
    """The search with every round decided that its results decide; writes nothing.

    A round is over when each of its trials is trained or ``given_up``.

    Raises:
        RunError: no trial came to the rung.
        ConfigError: no further trial can be drawn.
    """
    while record.goes_on():
        runs = [trial_run(study, trial) for trial in (record.rounds or [[]])[-1]]
        if any(
            run not in given_up and not is_trained(run, record.present().last_epoch) for run in runs
        ):
            break
        record = decided(study, record)
    return record


def decided(study: StudyPaths, record: SearchRecord) -> SearchRecord:
    """The search with one more round, whose trials that are not trained have failed.

    Raises:
        RunError: no trial came to the rung.
        ConfigError: no further trial can be drawn.
    """
    settings = record.settings
    following = rounds_of(settings)[len(record.rounds)]
    if following.draws:
        first = levels(settings)[0]
        scores = [score(study, settings, trial, first) for trial in range(len(record.values))]
        if record.rounds and all(value is None for value in scores):
            raise _all_failed(study, range(len(record.values)), first)
        drawn = optuna_study.draw(settings, record.values, scores, following.size)
        trials = [*range(len(record.values), len(record.values) + len(drawn))]
        update = {"values": [*record.values, *drawn]}
    else:
        entrants, rung = record.entrants(following.number), record.present().last_epoch
        found = {trial: score(study, settings, trial, rung) for trial in entrants}
        alive = [trial for trial in ranked(found, settings) if found[trial] is not None]
        if not alive:
            raise _all_failed(study, entrants, rung)
        trials, update = sorted(alive[: following.size]), {}
    return record.model_copy(update={**update, "rounds": [*record.rounds, trials]})


def ranked(scores: dict[int, float | None], settings: SearchSettings) -> list[int]:
    """Trials, the best first; those without a score last."""
    sign = 1 if settings.select_by == "loss" else -1

    def key(trial: int) -> tuple[float, int]:
        value = scores[trial]
        return (math.inf if value is None else sign * value), trial

    return sorted(scores, key=key)


def score(study: StudyPaths, settings: SearchSettings, trial: int, epoch: int) -> float | None:
    """The best validation score of a trial up to an epoch; None where it did not come so far."""
    run = trial_run(study, trial)
    if not run.metrics.is_file():
        return None
    rows = read_table(run.metrics)
    if len(rows) < epoch and not _ended_early(read_stage(run, "train")):
        return None
    best = best_epoch(rows[:epoch], settings.select_by)
    return None if best is None else float(rows[best - 1][f"val_{settings.select_by}"])


def is_trained(run: RunPaths, epoch: int) -> bool:
    """Whether a trial is trained up to an epoch, or has ended before."""
    train = read_stage(run, "train")
    return train.state == "done" and int(train.output.get("epochs", 0)) >= epoch


def has_failed_for_good(marker: StageRecord) -> bool:
    """Whether the same start would fail again."""
    return marker.state == "failed" and marker.error_class in ("user", "final")


def open_search(study: StudyPaths, record: SearchRecord) -> None:
    """Publish what a search has decided, and have the trials of its present round stop in time."""
    study.root.mkdir(parents=True, exist_ok=True)
    known = read_search(study)
    if known != record:
        write_search(study, record)
    present = record.present()
    for trial in record.rounds[-1]:
        run = trial_run(study, trial)
        run.root.mkdir(exist_ok=True)
        set_rung(
            run, record.settings.experiment(run.root.name, record.values[trial]), present.last_epoch
        )
    if known != record:
        keep_journal(study, record)


def keep_journal(study: StudyPaths, record: SearchRecord) -> None:
    """Write the search as it stands as a journal of Optuna's, for its dashboard and other tools."""
    optuna_study.write_journal(study, record, scores_at_levels(study, record))


def scores_at_levels(study: StudyPaths, record: SearchRecord) -> list[dict[int, float]]:
    """Of each trial the scores at the rungs it came to, by epoch."""
    found = []
    for trial in range(len(record.values)):
        at = {e: score(study, record.settings, trial, e) for e in reached(record, trial)}
        found.append({epoch: value for epoch, value in at.items() if value is not None})
    return found


def reached(record: SearchRecord, trial: int) -> list[int]:
    """The epochs of the rounds that a trial takes or took part in."""
    decided_rounds = zip(rounds_of(record.settings), record.rounds, strict=False)
    return [each.last_epoch for each, trials in decided_rounds if trial in trials]


def _ended_early(train: StageRecord) -> bool:
    return train.state == "done" and "ended_early" in train.output


def _all_failed(study: StudyPaths, trials: Sequence[int], epoch: int) -> RunError:
    runs = [trial_run(study, trial) for trial in trials]
    markers = [(run, read_stage(run, stage)) for run in runs for stage in ("pack", "train")]
    whys = (f"; {run.root.name}: {m.stage}: {m.error}" for run, m in markers if m.error)
    return RunError(
        f"{study.root}: none of {counted(len(runs), 'trial')} came to epoch {epoch} with a score, "
        f"so none goes on{next(whys, '')}; mend that and submit the search again"
    )
