"""``search.json``: what a search was asked for, and what it has decided so far.

A search goes in rounds. In the first ones trials are drawn and trained up to the first rung; in the
others the best go on to the next rung, the last of which is the last epoch. How many rounds there
are, and how many trials are in each, is known from the start.
"""

from dataclasses import dataclass
from math import floor

from pydantic import ValidationError

from cardamage.config import loading
from cardamage.config.recipe import Section
from cardamage.config.search import SearchSettings, Values
from cardamage.errors import RunError
from cardamage.runs.directory import is_trained
from cardamage.runs.paths import RunPaths, StudyPaths
from cardamage.system.files import write_text

_PARALLEL = 8


@dataclass(frozen=True)
class Round:
    """A round, by its number from 1: so many trials are trained until ``last_epoch``.

    ``draws``: they are new ones. ``is_final``: they are trained to their end, then tested.
    """

    number: int
    last_epoch: int
    size: int
    draws: bool
    is_final: bool


class SearchRecord(Section):
    """A search: its settings, and for each round decided so far the numbers of its trials.

    ``values`` are those of each trial by its number, from 0.
    """

    settings: SearchSettings
    rounds: list[list[int]] = []  # noqa: RUF012 - frozen
    values: list[Values] = []  # noqa: RUF012 - frozen

    def present(self) -> Round:
        """The round that was decided last."""
        return rounds_of(self.settings)[len(self.rounds) - 1]

    def goes_on(self) -> bool:
        """Whether there are rounds to decide yet."""
        return len(self.rounds) < len(rounds_of(self.settings))

    def finalists(self) -> list[int]:
        """The trials that are trained to their end, as far as that is decided."""
        decided = zip(rounds_of(self.settings), self.rounds, strict=False)
        return [trial for each, trials in decided if each.is_final for trial in trials]

    def entrants(self, number: int) -> list[int]:
        """The trials that are ranked for a round, which does not draw: those of the rung before."""
        if rounds_of(self.settings)[number - 2].draws:
            return [*range(len(self.values))]
        return self.rounds[number - 2]


def levels(settings: SearchSettings) -> list[int]:
    """The epochs at which trials are ranked: the rungs, and the last epoch."""
    rungs = settings.halving.rungs if settings.halving else []
    return rungs if rungs[-1:] == [settings.epochs] else [*rungs, settings.epochs]


def rounds_of(settings: SearchSettings) -> tuple[Round, ...]:
    """All rounds of a search."""
    search, (first, *later) = settings.search, levels(settings)
    together = search.trials if search.method == "random" else search.parallel or _PARALLEL
    rounds: list[Round] = []
    for start in range(0, search.trials, together):
        size = min(together, search.trials - start)
        rounds.append(Round(len(rounds) + 1, first, size, draws=True, is_final=not later))
    size = search.trials
    for epoch in later:
        keep = settings.halving.keep if settings.halving else 1.0
        size = max(1, floor(size * keep + 0.5))
        is_final = epoch == settings.epochs
        rounds.append(Round(len(rounds) + 1, epoch, size, draws=False, is_final=is_final))
    return tuple(rounds)


def trial_name(study: StudyPaths, number: int) -> str:
    """The name of a trial's run."""
    return f"{study.root.resolve().name}-{number:03d}"


def trial_run(study: StudyPaths, number: int) -> RunPaths:
    """The run of a trial."""
    return study.beside(trial_name(study, number))


def read_search(study: StudyPaths) -> SearchRecord | None:
    """The record of a search; None where the study is none, or has not begun.

    Raises:
        RunError: it is damaged.
    """
    try:
        return SearchRecord.model_validate_json(study.search.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise RunError(
            f"{study.search} is damaged; restore it, or submit the search under another name"
        ) from None


def write_search(study: StudyPaths, record: SearchRecord) -> None:
    """Publish the record of a search."""
    write_text(study.search, record.model_dump_json(indent=2) + "\n")


def taken_up(study: StudyPaths, settings: SearchSettings) -> SearchRecord:
    """The search of a study's folder as it stands, or a new one where nothing was trained.

    Raises:
        RunError: the folder is that of another search or study.
    """
    found = read_search(study)
    if found is None:
        if study.record.is_file():
            raise RunError(
                f"{study.root} holds a study that is no search; choose another name in the file, "
                f"or delete that folder"
            )
        return SearchRecord(settings=settings)
    if other := _difference(found.settings, settings):
        if not any(is_trained(trial_run(study, trial)) for trial in range(len(found.values))):
            return SearchRecord(settings=settings)
        raise RunError(
            f"{study.root} holds the trials of another search ({other}); choose another name in "
            f"the file, or delete that folder and its runs"
        )
    return found.model_copy(update={"settings": settings})


def _difference(there: SearchSettings, wanted: SearchSettings) -> str | None:
    """In what two searches differ that their decisions depend on."""
    keys = ("search", "space", "halving", "epochs", "select_by")
    left, right = (
        loading.flatten({key: s.model_dump(mode="json")[key] for key in keys})
        for s in (there, wanted)
    )
    for key in {**left, **right}:
        if (a := left.get(key)) != (b := right.get(key)):
            return f"{key}: {a}, not {b}"
    (_, first), (_, second) = next(there.variants()), next(wanted.variants())
    return next(iter(loading.differences(first, second)), None)
