"""Experiment files: read, overridden, checked."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cardamage.config import yaml12
from cardamage.config.complaints import explain
from cardamage.config.dataset import SYNTHETIC
from cardamage.config.experiment import Experiment
from cardamage.config.recipe import WEIGHT_FILES
from cardamage.errors import ConfigError

_DEFAULT_NAMES = {
    "model": "unet2",
    "optim": "adamw",
    "loss": "cross_entropy",
    "schedule": "constant",
}
"""What a section is that gives only some of its keys, as in ``optim: {lr: 3e-4}``."""

_FLIP = "horizontal_flip"


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment a YAML file describes, with ``key=value`` overrides by dotted key.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or does not fit the schema.
    """
    values = {"name": path.stem, **yaml12.read_mapping(path)}
    if not _is_of_first_version(values):  # whose paths counted from where one stood
        values = with_paths_from(path.parent, values)
    return parse(values, overrides, where=str(path))


def with_paths_from(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment's values with the relative paths in them made absolute, seen from a folder."""

    def absolute(text: str) -> str:
        return os.path.abspath(folder / Path(text).expanduser())  # noqa: PTH100 - no links

    values = dict(values)
    if isinstance(data := values.get("data"), dict):
        values["data"] = data = dict(data)
        for key in ("source", "healthy", "shards_dir"):
            value = data.get(key)
            if isinstance(value, str) and value and not (key == "source" and value == SYNTHETIC):
                data[key] = absolute(value)
        storage = data.get("storage")
        if isinstance(storage, dict) and isinstance(cache := storage.get("cache_dir"), str):
            data["storage"] = {**storage, "cache_dir": absolute(cache)}
    if isinstance(model := values.get("model"), dict):
        weights = model.get("weights")
        if isinstance(weights, str) and Path(weights).suffix in WEIGHT_FILES:
            values["model"] = {**model, "weights": absolute(weights)}
    return values


def _is_of_first_version(values: Mapping[str, Any]) -> bool:
    """Whether a file was written for the first version, as every run's config then was."""
    train = values.get("train")
    return isinstance(train, dict) and _FLIP in train


def parse(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "config"
) -> Experiment:
    """The experiment of ``values`` with overrides laid over it.

    Args:
        values: nested mappings as the YAML file has them; left as they are.
        overrides: ``dotted.key=value``; the value is read as YAML.
        where: named in front of every complaint.

    Raises:
        ConfigError: an override is malformed, or the outcome does not fit the schema.
    """
    if is_study(values):
        raise ConfigError(
            f"{where}: is a sweep or study, not an experiment; `cardamage submit` runs it"
        )
    merged = json.loads(json.dumps(values, default=str))
    for override in overrides:
        _lay_over(merged, override)
    if isinstance(train := merged.get("train"), dict) and train.get("record_samples") is False:
        del train["record_samples"]  # of the first version, and written out by every run of it
    for section, name in _DEFAULT_NAMES.items():
        if isinstance(merged.get(section), dict):
            merged[section].setdefault("name", name)
    if isinstance(merged.get("data"), dict):
        merged["data"].setdefault("shards_dir", "shards")
    merged = with_paths_from(Path.cwd(), _with_augment(merged))
    try:
        return Experiment.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Experiment)}") from None


def _with_augment(values: Mapping[str, Any]) -> dict[str, Any]:
    """``train.horizontal_flip`` of the first version as the entry of ``augment`` it became."""
    if not _is_of_first_version(values):
        return dict(values)
    train = dict(values["train"])
    flip = train.pop(_FLIP)
    if flip != 0 and values.get("augment"):
        raise ConfigError(
            "train.horizontal_flip has become an entry of augment, which is given too; "
            "leave train.horizontal_flip out"
        )
    steps = [{"name": _FLIP, "probability": flip}] if flip != 0 else values.get("augment", [])
    return {**values, "train": train, "augment": steps}


def is_study(values: Mapping[str, Any]) -> bool:
    """Whether the content of a YAML file is that of a sweep or study, right or wrong."""
    return "sweep" in values or "experiments" in values


def json_schema() -> str:
    """The JSON Schema of an experiment file, for editors that complete and check it."""
    schema = Experiment.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def differences(a: Experiment, b: Experiment) -> list[str]:
    """The keys in which two experiments are not the same run: ``optim.lr: 0.1, not 0.01``."""
    left, right = flatten(a.training_settings()), flatten(b.training_settings())
    if a.data.source == b.data.source or _place_of_source(a) == _place_of_source(b):
        del left["data.source"], right["data.source"]
    return [
        f"{key}: {left.get(key, 'absent')}, not {right.get(key, 'absent')}"
        for key in {**left, **right}
        if left.get(key) != right.get(key)
    ]


def _place_of_source(experiment: Experiment) -> str:
    """Where the dataset lies as seen from the shards: a project may be moved as a whole."""
    data = experiment.data
    return (
        data.source if data.source == SYNTHETIC else os.path.relpath(data.source, data.shards_dir)
    )


def _lay_over(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(part.isidentifier() for part in key.split(".")):
        raise ConfigError(f'"{override}" is no override; write key=value, as in optim.lr=3e-4')
    try:
        value = yaml12.load(text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f'{key}: the value "{text}" is not YAML; quote it') from None
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f'{key}: "{parent}" is {child!r}, which holds no keys')
        values = child
    values[last] = value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested sections by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
