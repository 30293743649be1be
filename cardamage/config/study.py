"""The experiments that a sweep, a search or a study stands for."""

import functools
import hashlib
import itertools
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cardamage.config import loading
from cardamage.config.choice import parse_pick
from cardamage.config.complaints import explain
from cardamage.config.experiment import Experiment
from cardamage.config.search import Search, SearchSettings, settings_of
from cardamage.config.study_file import (
    LONGEST_NAME,
    MAX_RUNS,
    Overrides,
    StudyComparison,
    StudyFile,
    Sweep,
    SweepFile,
)
from cardamage.config.yaml12 import read_mapping
from cardamage.errors import ConfigError

_LONGEST_VALUE = 24  # characters of a value inside the name of a run


@dataclass(frozen=True)
class Study:
    """A study or sweep, every experiment of it valid and named after its run directory.

    ``compare`` holds what each further report compares, by the report's name, as
    :func:`~cardamage.config.choice.parse_pick` reads it. A search has no experiments yet.
    """

    name: str
    source: Path
    experiments: tuple[Experiment, ...]
    compare: Mapping[str, tuple[str, ...]]
    search: SearchSettings | None = None


def expand(
    path: Path,
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    unprefixed: Collection[str] = (),
) -> Study:
    """The experiments that the study or sweep in a file stands for.

    Args:
        path: the file, from whose folder the configs it names are looked for.
        values: its content.
        overrides: ``dotted.key=value``, laid over every experiment, after the file's own.
        unprefixed: experiments of a study whose runs are named as they once were, by
            the key alone.

    Raises:
        ConfigError: the file, an override or an experiment is wrong.
    """
    file = _file(path, values, overrides)
    match file:
        case SweepFile(sweep=Sweep(search=Search() as search)):
            settings = _search_of(path, file.sweep, search, overrides)
            return Study(file.name, path, (), {}, settings)
        case SweepFile():
            members = _members_of_sweep(path, file, overrides)
            compare = {}
        case StudyFile():
            names = {k: k if k in unprefixed else file.run_name(k) for k in file.experiments}
            members = {names[key]: (e.config, e.overrides) for key, e in file.experiments.items()}
            compare = {each.name: tuple(_renamed(each.runs, names)) for each in file.compare}
    read_base = functools.cache(functools.partial(_read_base, path))
    experiments = []
    for name, (config, values_of_run) in members.items():
        if "name" in values_of_run:
            raise ConfigError(
                f"{path}: run {name}: this file names it, so the key name cannot be given; drop it"
            )
        base = {**read_base(path.parent / config), "name": name}
        own = [f"{key}={json.dumps(value)}" for key, value in _seen_from(path, values_of_run)]
        try:
            experiments.append(
                loading.parse(base, [*own, *overrides], where=str(path.parent / config))
            )
        except ConfigError as error:
            raise ConfigError(f"{path}: run {name}: {error}") from None
    if isinstance(file, StudyFile):
        by_key = dict(zip(file.experiments, experiments, strict=True))
        _check_epochs(path, by_key, file.compare, overrides)
        experiments = [_continuing(each, names) for each in experiments]
    return Study(file.name, path, tuple(experiments), compare)


def _file(path: Path, values: Mapping[str, Any], overrides: Sequence[str]) -> SweepFile | StudyFile:
    """The content of a file, valid as far as it goes without the experiments."""
    for override in overrides:
        if override.startswith("name="):
            raise ConfigError(
                f"{override} would give all runs of {path} one name; leave it out, or change the "
                f"name in the file"
            )
    if "sweep" in values and "experiments" in values:
        raise ConfigError(f"{path}: has both sweep and experiments; make it two files")
    schema = SweepFile if "sweep" in values else StudyFile
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, schema)}") from None


def _continuing(experiment: Experiment, names: Mapping[str, str]) -> Experiment:
    """An experiment that continues the run of another one here by that run's name."""
    source = experiment.continue_from
    if source is None or source.run not in names:
        return experiment
    source = source.model_copy(update={"run": names[source.run]})
    return experiment.model_copy(update={"continue_from": source})


def _renamed(texts: Iterable[str], names: Mapping[str, str]) -> Iterator[str]:
    """What a study compares, by the names of its runs."""
    for pick in map(parse_pick, texts):
        yield str(replace(pick, run=names[pick.run]))


def _seen_from(path: Path, values: Overrides) -> Iterator[tuple[str, Any]]:
    """The values that a study's file lays over an experiment, paths counted from that file."""
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if section != "data":
            yield key, value
        else:
            data = {name: value} if dot else value
            data = loading.with_paths_from(path.parent, {"data": data})["data"]
            yield key, data[name] if dot else data


def _check_epochs(
    path: Path,
    experiments: Mapping[str, Experiment],
    compare: Sequence[StudyComparison],
    overrides: Sequence[str],
) -> None:
    """Refuse to compare an epoch that the file itself does not ask for.

    Where the command line makes runs shorter, the last epoch there is takes its place.
    """
    if any(override.partition("=")[0] in ("train", "train.epochs") for override in overrides):
        return
    epochs = {key: experiment.train.epochs for key, experiment in experiments.items()}
    for comparison in compare:
        for pick in map(parse_pick, comparison.runs):
            if pick.within(epochs[pick.run]) != pick:
                raise ConfigError(
                    f'{path}: compare: "{comparison.name}" has {pick}, but {pick.run} is trained '
                    f"for {epochs[pick.run]} epochs; name one of them, {pick.run}@best or "
                    f"{pick.run}@last"
                )


def _read_base(path: Path, where: Path) -> dict[str, Any]:
    try:
        values = read_mapping(where)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if loading.is_study(values):
        raise ConfigError(f"{path}: {where} is no experiment but a study or sweep itself")
    return loading.with_paths_from(where.parent, values)


def _members_of_sweep(
    path: Path, file: SweepFile, overrides: Sequence[str]
) -> dict[str, tuple[str, Overrides]]:
    """For each run its config and its values, by the run's name."""
    grid = file.sweep.grid
    _check_overrides(path, file.sweep, overrides)
    if (runs := math.prod(map(len, grid.values()))) > MAX_RUNS:
        raise ConfigError(f"{path}: sweep.grid: makes {runs} runs; at most {MAX_RUNS} are allowed")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    names = _names(file.name, points)
    return {
        name: (file.sweep.config, {**file.sweep.overrides, **point})
        for name, point in zip(names, points, strict=True)
    }


def _search_of(
    path: Path, sweep: Sweep, search: Search, overrides: Sequence[str]
) -> SearchSettings:
    _check_overrides(path, sweep, overrides)
    base = json.loads(json.dumps(_read_base(path, path.parent / sweep.config), default=str))
    if isinstance(data := base.get("data"), dict):  # jobs may later start elsewhere
        data.setdefault("shards_dir", str(Path("shards").absolute()))
    own = [f"{key}={json.dumps(v)}" for key, v in _seen_from(path, sweep.overrides)]
    try:
        return settings_of(
            search,
            sweep.space,
            sweep.halving,
            base=base,
            overrides=own,
            command_line=overrides,
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_overrides(path: Path, sweep: Sweep, overrides: Sequence[str]) -> None:
    """Refuse overrides of what differs between the runs of a sweep."""
    for override in overrides:
        key = override.partition("=")[0]
        for swept in sweep.keys:
            if f"{key}.".startswith(f"{swept}.") or f"{swept}.".startswith(f"{key}."):
                raise ConfigError(
                    f"{override} cannot be laid over {path}, which sweeps over {swept}; leave it "
                    f"out, or change the {'grid' if sweep.grid else 'space'}"
                )


def _names(prefix: str, points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A run's name for every point of a grid, as in ``lr_sweep-lr_0.001-seed_0``.

    A name depends on its point, not on the others, so adding values renames no run.
    """
    keys = list(points[0])
    last = [key.rpartition(".")[2] for key in keys]
    short = [s if last.count(s) == 1 else key for s, key in zip(last, keys, strict=True)]
    names = []
    for point in points:
        values = zip(short, point.values(), strict=True)
        names.append("-".join([prefix, *(f"{key}_{_in_name(value)}" for key, value in values)]))
    return [
        name
        if len(name) <= LONGEST_NAME and names.count(name) == 1
        else f"{name[: LONGEST_NAME - 9]}-{_digest(point)}"
        for name, point in zip(names, points, strict=True)
    ]


def _in_name(value: Any) -> str:
    """A value in the characters that names of runs may have; a hash tells what they cannot."""
    leaves = _leaves(value)
    text = "-".join(t if isinstance(t, str) else json.dumps(t).replace("e+", "e") for t in leaves)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    if plain == text and len(plain) <= _LONGEST_VALUE:
        return plain
    return f"{plain[:_LONGEST_VALUE].strip('-')}-{_digest(value)}"


def _leaves(value: Any) -> Iterator[Any]:
    """The values inside nested mappings and lists, in order."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
