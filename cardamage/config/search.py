"""Searches: a sweep whose values are drawn, and whose runs may be stopped at rungs."""

from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from cardamage.config import loading
from cardamage.config.experiment import Experiment, SelectBy
from cardamage.config.recipe import Section
from cardamage.errors import ConfigError

Values = dict[str, Any]
"""Values of an experiment by dotted key."""

_FIXED = ("name", "train.epochs", "test")
"""Keys that all trials of a search have in common, or they could not be ranked."""


class Dimension(Section):
    """The values that a key may take: a range of numbers, or choices, which may be a mere list."""

    low: int | float | None = None
    """The lowest number; with high, and both whole numbers, only whole ones are drawn."""
    high: int | float | None = None
    """The highest number."""
    log: bool = False
    """Draw evenly on a logarithmic scale, as for learning rates."""
    step: int | float | None = None
    """Draw low, low + step, low + 2 step and so on."""
    choices: list[Any] | None = None
    """Values to choose from, in place of a range."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _has_several_values(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None:
                raise ValueError("has both choices and a range; keep one")
            texts = [dumps(value, default=str) for value in self.choices]
            if twice := next((text for text in texts if texts.count(text) > 1), None):
                raise ValueError(f"lists {twice} twice; keep one")
            if len(texts) < 2:
                raise ValueError(
                    f"has {'one value' if texts else 'no value'}, so there is nothing to search; "
                    f"add another, or move the key to overrides"
                )
            return self
        if self.low is None or self.high is None:
            raise ValueError(
                "needs low and high, as in {low: 1e-4, high: 1e-2, log: true}, or a list of choices"
            )
        if self.low >= self.high:
            raise ValueError(
                f"low must be less than high; low is {self.low:g} and high {self.high:g}; raise "
                f"high, or move the key to overrides"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low must be above 0; it is {self.low:g}")
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            why = "log draws no steps" if self.log else f"it is {self.step:g}"
            raise ValueError(f"step must be above 0, at most high - low, and without log; {why}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler.resolve_ref_schema(handler(core))
        title = found.pop("title", "Dimension")
        return {"title": title, "anyOf": [found, {"type": "array", "minItems": 2}]}

    @property
    def is_whole(self) -> bool:
        """Whether the numbers of a range are whole ones."""
        return all(isinstance(v, int) for v in (self.low, self.high, self.step or 1))

    def ends(self) -> list[Any]:
        """All choices, or both ends of a range."""
        return [self.low, self.high] if self.choices is None else self.choices


class Search(Section):
    """How the values of trials are drawn."""

    method: Literal["random", "tpe"] = "tpe"
    """random, or tpe: the tree-structured Parzen estimator of Optuna, which learns from trials."""
    trials: Annotated[int, Field(ge=2, le=1000)]
    """How many there are."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """What is drawn is a function of this and of the scores of trials before."""
    parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    """With tpe: trials drawn at a time, which run side by side; default 8, the first at random."""

    @model_validator(mode="after")
    def _parallel_is_for_tpe(self) -> Self:
        if self.parallel is not None and self.method == "random":
            raise ValueError(
                "parallel is for method: tpe; at random all trials are drawn at once, and "
                "--max-running limits how many run: leave it out"
            )
        return self


class Halving(Section):
    """Successive halving (https://arxiv.org/abs/1502.07943): only the best trials go on."""

    rungs: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    """Epochs after which trials stop and are ranked by their best validation score so far."""
    keep: Annotated[float, Field(gt=0, lt=1)]
    """The share that goes on from each rung, rounded, at least one."""

    @model_validator(mode="after")
    def _rungs_rise(self) -> Self:
        if sorted(set(self.rungs)) != self.rungs:
            wanted = sorted(set(self.rungs))
            raise ValueError(f"rungs must rise; they are {self.rungs}: write rungs: {wanted}")
        return self


class SearchSettings(Section):
    """All that a search's decisions depend on besides the scores of its trials.

    ``base`` holds the experiment as nested mappings, over which a trial lays ``overrides``, its own
    values and ``command_line``, in this order. ``epochs`` and ``select_by`` are those of all
    trials.
    """

    search: Search
    space: dict[str, Dimension]
    halving: Halving | None
    base: dict[str, Any]
    overrides: list[str]
    command_line: list[str]
    epochs: int
    select_by: SelectBy

    def experiment(self, name: str, values: Values) -> Experiment:
        """The experiment of a trial.

        Raises:
            ConfigError: these values do not go together.
        """
        own = [f"{key}={dumps(value)}" for key, value in values.items()]
        words = [*self.overrides, *own, *self.command_line]
        return loading.parse({**self.base, "name": name}, words, where=name)

    def variants(self) -> Iterator[tuple[Values, Experiment]]:
        """Experiments with every choice and the ends of every range, one key after another."""
        first = {key: dimension.ends()[0] for key, dimension in self.space.items()}
        yield first, self.experiment("trial", first)
        for key, dimension in self.space.items():
            for value in dimension.ends()[1:]:
                yield {key: value}, self.experiment("trial", {**first, key: value})


def settings_of(
    search: Search,
    space: Mapping[str, Dimension],
    halving: Halving | None,
    *,
    base: Mapping[str, Any],
    overrides: Sequence[str],
    command_line: Sequence[str],
) -> SearchSettings:
    """The settings of a search whose trials are valid experiments and can be ranked.

    Raises:
        ConfigError: they are not.
    """
    for key in space:
        for fixed in _FIXED:
            if f"{key}.".startswith(f"{fixed}."):
                raise ConfigError(
                    f"space.{key}: trials that differ in this cannot be ranked; leave it out"
                )
    given: dict[str, Any] = {
        "search": search,
        "space": dict(space),
        "halving": halving,
        "base": dict(base),
        "overrides": list(overrides),
        "command_line": list(command_line),
    }
    drafted = SearchSettings(**given, epochs=1, select_by="loss")
    (_, first), *others = drafted.variants()
    for values, other in others:
        if other.data.packing() != first.data.packing():
            (key,) = values
            raise ConfigError(
                f"space.{key}: changes how the dataset is packed, which trials share; sweep over "
                f"it with a grid instead"
            )
    epochs, select_by = first.train.epochs, first.test.select_by
    if any((o.train.epochs, o.test.select_by) != (epochs, select_by) for _, o in others):
        raise ConfigError("space: trials differ in train.epochs or test.select_by; fix them")
    if halving and halving.rungs[-1] > epochs:
        raise ConfigError(
            f"halving.rungs: {halving.rungs[-1]} is beyond train.epochs, which is {epochs}; lower "
            f"the rung, or raise train.epochs"
        )
    return SearchSettings(**given, epochs=epochs, select_by=select_by)
