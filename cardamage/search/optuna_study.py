"""What Optuna is asked: values for trials, and how much each parameter matters.

Optuna keeps nothing between two questions: it is told all earlier trials each time, so that the
answer follows from what is stored.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from cardamage.config.search import Dimension, SearchSettings, Values
from cardamage.errors import ConfigError, require_extra
from cardamage.runs.paths import StudyPaths
from cardamage.search.record import SearchRecord

_TRIES = 1000
_DIGITS = 4  # of numbers that are drawn: enough, and a person can read them


def draw(
    settings: SearchSettings,
    earlier: Sequence[Values],
    scores: Sequence[float | None],
    count: int,
) -> list[Values]:
    """The values of the next trials, none of which was tried before.

    Raises:
        ConfigError: Optuna is not installed, or no further trial is new and valid.
    """
    optuna = _optuna()
    # Of several rounds each draws its own numbers.
    seed, search = (settings.search.seed * 1_000_003 + len(earlier)) % 2**32, settings.search
    random = optuna.samplers.RandomSampler(seed=seed)
    learned = optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)
    study = optuna.create_study(
        direction=_direction(settings),
        sampler=learned if search.method == "tpe" and earlier else random,
    )
    space = {key: _distribution(dimension) for key, dimension in settings.space.items()}
    for values, score in zip(earlier, scores, strict=True):
        study.add_trial(_trial(settings, values, {} if score is None else {0: score}, score))
    drawn: list[Values] = []
    for number in range(_TRIES):
        if number == _TRIES // 5:  # what was learned leads to what was tried
            study.sampler = random
        asked = study.ask(space)
        values = {key: _decoded(settings.space[key], v) for key, v in asked.params.items()}
        if values not in earlier and values not in drawn and _is_valid(settings, values):
            drawn.append(values)
            if len(drawn) == count:
                return drawn
        else:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
    raise ConfigError(
        f"search.trials: {settings.search.trials}: in space only {len(earlier) + len(drawn)} were "
        f"found that are different and valid; lower trials, or widen space"
    )


def write_journal(
    study: StudyPaths, record: SearchRecord, scores: Sequence[Mapping[int, float]]
) -> None:
    """Write all trials, with their scores at the rungs by epoch, as the storage of an Optuna study.

    A finalist is complete, a trial that was stopped at a rung is pruned.
    """
    optuna = _optuna()
    aside = study.journal.with_name(f".{study.journal.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(aside))
    stored = optuna.create_study(
        study_name=study.root.resolve().name,
        storage=optuna.storages.JournalStorage(backend),
        direction=_direction(record.settings),
    )
    finalists, in_round = record.finalists(), record.rounds[-1]
    for trial, (values, at) in enumerate(zip(record.values, scores, strict=True)):
        value = at.get(record.settings.epochs) if trial in finalists else None
        state = "COMPLETE" if value is not None else "PRUNED" if at else "FAIL"
        if value is None and trial in in_round:
            state = "RUNNING"
        stored.add_trial(_trial(record.settings, values, at, value, state))
    aside.replace(study.journal)


def importances(
    settings: SearchSettings, values: Sequence[Values], scores: Sequence[float | None]
) -> dict[str, float] | None:
    """The share of each key in how scores differ, the largest first; they add up to 1.

    By fANOVA (https://proceedings.mlr.press/v32/hutter14.html), as Optuna computes it over random
    forests. None where it is not installed, or fewer than four trials have a score, or all the
    same.
    """
    known = [score for score in scores if score is not None]
    if len(known) < 4 or len(set(known)) < 2:
        return None
    try:
        optuna = _optuna()
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=settings.search.seed)
        study = optuna.create_study(direction=_direction(settings))
        for each, score in zip(values, scores, strict=True):
            study.add_trial(_trial(settings, each, {}, score))
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ConfigError, ImportError, RuntimeError, ValueError):
        return None
    return {key: float(share) for key, share in found.items()}


def _optuna() -> Any:
    require_extra("optuna", "search")
    import optuna  # noqa: PLC0415 - an extra, and half a second
    import optuna.storages.journal  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _direction(settings: SearchSettings) -> str:
    return "minimize" if settings.select_by == "loss" else "maximize"


def _trial(
    settings: SearchSettings,
    values: Values,
    at: Mapping[int, float],
    value: float | None,
    state: str | None = None,
) -> Any:
    trial = _optuna().trial
    return trial.create_trial(
        state=trial.TrialState[state or ("FAIL" if value is None else "COMPLETE")],
        value=value,
        params={key: _encoded(v) for key, v in values.items()},
        distributions={key: _distribution(settings.space[key]) for key in values},
        intermediate_values=dict(at),
    )


def _distribution(dimension: Dimension) -> Any:
    distributions = _optuna().distributions
    if dimension.choices is not None:
        return distributions.CategoricalDistribution([*map(_encoded, dimension.choices)])
    ends = dimension.low, dimension.high
    if dimension.is_whole:
        return distributions.IntDistribution(*ends, log=dimension.log, step=dimension.step or 1)
    return distributions.FloatDistribution(*ends, log=dimension.log, step=dimension.step)


def _encoded(value: Any) -> Any:
    """A value as Optuna takes it: choices may be lists and mappings, which it does not know."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


def _decoded(dimension: Dimension, value: Any) -> Any:
    if dimension.choices is not None:
        return next(choice for choice in dimension.choices if _encoded(choice) == value)
    if dimension.is_whole or dimension.low is None or dimension.high is None:
        return value
    digits = _DIGITS if dimension.step is None else 10
    return min(max(float(f"{value:.{digits}g}"), dimension.low), dimension.high)


def _is_valid(settings: SearchSettings, values: Values) -> bool:
    with suppress(ConfigError):
        settings.experiment("trial", values)
        return True
    return False
