"""The schema of files of many experiments: sweeps, searches and studies."""

import json
from typing import Annotated, Any, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from cardamage.config.choice import parse_pick
from cardamage.config.recipe import Section
from cardamage.config.search import Dimension, Halving, Search
from cardamage.errors import ConfigError

MAX_RUNS = 1000
"""Most runs of one file."""

LONGEST_NAME = 100
"""Characters, as the schema of an experiment allows."""

Name = Annotated[str, Field(max_length=LONGEST_NAME, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
ConfigPath = Annotated[str, Field(min_length=1)]
Overrides = dict[str, Any]
GridValues = Annotated[list[Any], Field(min_length=1, max_length=MAX_RUNS)]


class Sweep(Section):
    """One experiment over a grid of values, or a search in a space of them."""

    config: ConfigPath
    """The experiment's YAML file, as seen from the folder of this file."""
    overrides: Overrides = {}  # noqa: RUF012 - frozen
    """Values for all runs by dotted key, as in optim.lr; a mapping replaces the whole section."""
    grid: dict[str, GridValues] = {}  # noqa: RUF012 - frozen
    """Values by dotted key; every combination is a run, named after its values."""
    space: dict[str, Dimension] = {}  # noqa: RUF012 - frozen
    """In place of a grid: what a search draws from, by dotted key."""
    search: Search | None = None
    """How values are drawn from the space."""
    halving: Halving | None = None
    """At which epochs the worse trials of a search are stopped."""

    @model_validator(mode="after")
    def _is_grid_or_search(self) -> Self:
        if self.grid and self.space:
            raise ValueError("has both grid and space; keep one")
        if not self.grid and not self.space:
            raise ValueError("needs a grid, as in grid: {optim.lr: [1e-3, 3e-4]}, or a space")
        if self.space and not self.search:
            raise ValueError("space needs a search, as in search: {method: tpe, trials: 20}")
        if self.grid and (self.search or self.halving):
            name = "search" if self.search else "halving"
            raise ValueError(f"{name} draws from a space; write space in place of grid")
        return self

    @model_validator(mode="after")
    def _values_are_distinct(self) -> Self:
        for key, values in self.grid.items():
            texts = [json.dumps(value, default=str) for value in values]
            if twice := next((text for text in texts if texts.count(text) > 1), None):
                raise ValueError(f"grid lists {twice} twice for {key}; keep one")
        for key in self.keys:
            if key in self.overrides:
                where = "grid" if self.grid else "space"
                raise ValueError(f"{key} is in overrides and in {where}; keep one")
        return self

    @property
    def keys(self) -> list[str]:
        """The dotted keys that differ between its runs."""
        return [*self.grid, *self.space]


class SweepFile(Section):
    """A sweep: one experiment over many values, submitted at once and compared."""

    name: Name
    """The sweep's folder, and the beginning of its runs' names."""
    sweep: Sweep
    """What is run."""


class StudyExperiment(Section):
    """One experiment of a study."""

    config: ConfigPath
    """The experiment's YAML file, as seen from the folder of this file."""
    overrides: Overrides = {}  # noqa: RUF012 - frozen
    """Values over those of the file by dotted key; a mapping replaces the whole section."""


class StudyComparison(Section):
    """A report that compares some runs of a study, or single checkpoints of them."""

    name: Name
    """The folder inside the study's report."""
    runs: Annotated[list[str], Field(min_length=2, max_length=MAX_RUNS)]
    """Which experiments, in order: e6 is the best checkpoint, e6@2, e6@best, e6@last that one."""


class StudyFile(Section):
    """A study: several experiments, submitted at once and compared."""

    name: Name
    """The study's folder, and the beginning of its runs' names."""
    experiments: Annotated[dict[str, StudyExperiment], Field(min_length=1, max_length=MAX_RUNS)]
    """The experiments; in the study networks, the run directory of unet is networks-unet."""
    compare: Annotated[list[StudyComparison], Field(max_length=MAX_RUNS)] = []  # noqa: RUF012
    """Reports on some of the runs, beside the one that compares all of them."""

    def run_name(self, key: str) -> str:
        """The run of an experiment."""
        return f"{self.name}-{key}"

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for key in self.experiments:
            try:
                for name in (key, self.run_name(key)):
                    TypeAdapter(Name).validate_python(name)
            except ValidationError:
                raise ValueError(
                    f'experiments: "{key}" names the run directory {self.run_name(key)}, which may '
                    f"have up to 100 letters, digits, dots, dashes and underscores; {key!r} begins "
                    f"with a letter or digit"
                ) from None
        names = [comparison.name for comparison in self.compare]
        for comparison in self.compare:
            if names.count(comparison.name) > 1:
                raise ValueError(f'compare has two of the name "{comparison.name}"; rename one')
            for text in comparison.runs:
                try:
                    run = parse_pick(text).run
                except ConfigError as error:
                    raise ValueError(f'compare: "{comparison.name}": {error}') from None
                if run not in self.experiments:
                    raise ValueError(
                        f'compare: "{comparison.name}" compares "{run}", which is none of the '
                        f"experiments: {', '.join(self.experiments)}"
                    )
                if comparison.runs.count(text) > 1:
                    raise ValueError(f'compare: "{comparison.name}" has "{text}" twice; keep one')
        return self


def json_schema() -> str:
    """The JSON Schema of a study or sweep file, for editors that complete and check it."""
    schema = TypeAdapter(SweepFile | StudyFile).json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"
