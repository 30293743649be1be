"""``study.json``: which runs a study consists of, and which of them it compares."""

from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from cardamage.errors import RunError
from cardamage.runs.paths import StudyPaths
from cardamage.runs.stages import writable
from cardamage.system.files import write_json


@dataclass(frozen=True)
class Comparison:
    """A report that compares some of the runs.

    ``name`` is its folder inside the study's report; ``runs`` are compared in order, each as
    :func:`cardamage.config.choice.parse_pick` reads it.
    """

    name: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was submitted last.

    ``source`` is the file that describes it; ``runs`` are the names of all its runs, in order,
    whose directories lie beside the study's; ``compare`` are reports beside the one on all.
    """

    name: str
    source: str
    runs: tuple[str, ...]
    compare: tuple[Comparison, ...] = ()

    __pydantic_config__ = ConfigDict(extra="forbid")


_RECORD = TypeAdapter(StudyRecord)


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study."""
    return StudyPaths(folder).record.is_file()


def open_study(study: StudyPaths, record: StudyRecord) -> None:
    """Make the study's folder, or take up the one that is there, and publish its record.

    Raises:
        RunError: it cannot be written.
    """
    with writable(study.root):
        study.root.mkdir(parents=True, exist_ok=True)
        write_json(study.record, asdict(record))
        study.logs.mkdir(exist_ok=True)


def read_study(study: StudyPaths) -> StudyRecord:
    """The record of a study.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return _RECORD.validate_json(study.record.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{study.root} is no study: it has no {study.record.name}") from None
    except (OSError, ValueError):
        raise RunError(f"{study.record} is damaged; submit the study again") from None
