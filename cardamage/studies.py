"""``study.json``: which runs a study consists of, and which of them it compares."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cardamage.errors import CLOSED, RunError
from cardamage.files import write_json
from cardamage.paths import StudyPaths


@dataclass(frozen=True)
class Comparison:
    """A report that compares some of the runs.

    Attributes:
        name: of its folder inside the study's report.
        runs: what is compared, in order, as :func:`cardamage.picks.parse_pick` reads it.
    """

    name: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was submitted last.

    Attributes:
        name: of the study and its folder.
        source: the file that describes it.
        runs: the names of all its runs, in order; their directories lie beside the study's.
        compare: reports on some of the runs, beside the one on all of them.
    """

    name: str
    source: str
    runs: tuple[str, ...]
    compare: tuple[Comparison, ...] = ()


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study."""
    return StudyPaths(folder).record.is_file()


def open_study(study: StudyPaths, record: StudyRecord) -> None:
    """Make the study's folder, or take up the one that is there, and publish its record.

    Raises:
        RunError: it cannot be written.
    """
    try:
        study.root.mkdir(parents=True, exist_ok=True)
        write_json(study.record, asdict(record))
        study.logs.mkdir(exist_ok=True)
    except CLOSED as error:
        raise RunError(
            f"{study.root}: the study's folder cannot be written ({error.strerror}); "
            f"choose another place with --runs-dir"
        ) from None


def read_study(study: StudyPaths) -> StudyRecord:
    """The record of a study.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        content = json.loads(study.record.read_text(encoding="utf-8"))
        content["runs"] = tuple(content["runs"])
        content["compare"] = tuple(
            Comparison(entry["name"], tuple(entry["runs"])) for entry in content["compare"]
        )
        return StudyRecord(**content)
    except FileNotFoundError:
        raise RunError(f"{study.root} is no study: it has no {study.record.name}") from None
    except (OSError, ValueError, TypeError, KeyError):
        raise RunError(f"{study.record} is damaged; submit the study again") from None
