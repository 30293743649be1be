"""Continuing another run: which checkpoint ``continue_from`` means, and whether it can serve.

The other run's weights are where training begins, and nothing else of it is taken over. Once the
run has saved a state of its own that is what it resumes from, whatever becomes of the other run.
"""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter

from cardamage.config import loading
from cardamage.config.experiment import ContinueFrom, Experiment
from cardamage.config.recipe import WEIGHT_FILES
from cardamage.errors import CheckpointError, ConfigError, RunError
from cardamage.runs.checkpoints import resolve
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import now, read_stage
from cardamage.system.files import write_json


@dataclass(frozen=True)
class Source:
    """The checkpoint that a run continues from: of which run, with which config."""

    run: RunPaths
    experiment: Experiment
    epoch: int

    @property
    def path(self) -> Path:
        """The checkpoint's file."""
        return self.run.checkpoint(self.epoch)


@dataclass(frozen=True)
class Origin:
    """What ``continued_from.json`` says: the weights that training really began with.

    ``weights_sha256`` is in hex and of the checkpoint's file, ``config_hash`` of the other run's
    config; ``time`` is when training began, ISO 8601 in UTC.
    """

    run: str
    epoch: int
    weights_sha256: str
    config_hash: str
    time: str

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Pretrained:
    """What ``pretrained.json`` says: the pretrained weights that training began with.

    ``weights`` is what the config asked for, ``source`` where that came from, in words; ``sha256``
    is the file's, in hex. The file gave so many ``tensors``, and so many had no place.
    """

    weights: str
    file: str
    source: str
    sha256: str
    tensors: int
    left_out: int

    __pydantic_config__ = ConfigDict(extra="forbid")


Record = TypeVar("Record")

_ORIGIN = TypeAdapter(Origin)
_PRETRAINED = TypeAdapter(Pretrained)


def source_run(run: RunPaths, continued: ContinueFrom) -> RunPaths:
    """The directory of the run that ``run`` continues; it need not be there."""
    if "/" in continued.run:
        return RunPaths(Path(continued.run))
    return run.beside(continued.run)


def find_source(run: RunPaths, experiment: Experiment, continued: ContinueFrom) -> Source:
    """The checkpoint that a run continues from, which has to be there by now.

    Raises:
        ConfigError: it is of another model or other classes.
        RunError: the other run is missing, is not trained, or has no such checkpoint.
    """
    other = source_run(run, continued)
    if not other.config.is_file():
        raise RunError(
            f"{run.root} continues {other.root}, which is no run directory; run that experiment "
            f"first, or submit both together"
        )
    theirs = loading.load(other.config)
    check_fits(experiment, theirs, other)
    there = other.finished_checkpoints()
    if not isinstance(continued.checkpoint, int):
        trained = read_stage(other, "train")
        epochs = theirs.train.epochs
        if trained.state != "done" or trained.output.get("epochs", 0) < epochs:
            raise RunError(
                f"{run.root} continues the {continued.checkpoint} checkpoint of {other.root}, "
                f"whose stage train is {trained.state} with {len(there)} of {epochs} epochs; train "
                f"it to its end, `cardamage submit {shlex.quote(str(other.root))}`, or name "
                f"an epoch, as in continue_from.checkpoint=1"
            )
    try:
        epoch, _ = resolve(other, continued.checkpoint, theirs.test.select_by)
    except CheckpointError as error:
        raise RunError(
            f"{run.root} continues {other.root}: {error}; name another continue_from.checkpoint"
        ) from None
    return Source(other, theirs, epoch)


def weights_file(run: RunPaths, weights: str) -> Path:
    """The file, or the best checkpoint of the run, that ``model.weights`` of a run names.

    Raises:
        RunError: there is no such run, or it has no checkpoint yet.
    """
    if Path(weights).suffix in WEIGHT_FILES:
        return Path(weights)
    other = source_run(run, ContinueFrom(run=weights))
    if not other.config.is_file():
        raise RunError(
            f"model.weights: {other.root} is no run directory; give imagenet, none, a run, or a "
            f"file that ends in {', '.join(WEIGHT_FILES)}"
        )
    try:
        return resolve(other, "best", loading.load(other.config).test.select_by)[1]
    except CheckpointError as error:
        raise RunError(f"model.weights: {error}; train that run first") from None


def check_fits(experiment: Experiment, theirs: Experiment, other: RunPaths) -> None:
    """Make sure that the weights of another run fit the experiment that continues it.

    Raises:
        ConfigError: they are of another model or other classes, or end before the epoch.
    """
    mine, its = (
        each.model.model_dump(mode="json", exclude={"weights"}) for each in (experiment, theirs)
    )
    if mine != its:
        raise ConfigError(
            f"{experiment.name} continues {other.root}, whose model is {_in_words(its)}, not "
            f"{_in_words(mine)}; weights fit no other model, so choose that one or another run"
        )
    my_classes, its_classes = experiment.data.class_names[1:], theirs.data.class_names[1:]
    if my_classes != its_classes:
        raise ConfigError(
            f"{experiment.name} continues {other.root}, whose classes are "
            f"{', '.join(its_classes)}, not {', '.join(my_classes)}; weights fit no other list of "
            f"classes, so choose the same, in the same order, or another run"
        )
    epoch = experiment.continue_from.checkpoint if experiment.continue_from else None
    if isinstance(epoch, int) and epoch > theirs.train.epochs:
        raise ConfigError(
            f"continue_from.checkpoint: {epoch} lies behind the last epoch of {other.root}, which "
            f"is {theirs.train.epochs}; name an epoch up to that, best or last"
        )


def has_begun(run: RunPaths) -> bool:
    """Whether a run has a state of its own, so that what it continues no longer counts."""
    return run.resume.is_dir() or bool(run.finished_checkpoints())


def write_origin(run: RunPaths, source: Source, weights_sha256: str) -> None:
    """Publish ``continued_from.json``: training begins with these weights."""
    origin = Origin(
        run=str(source.run.root),
        epoch=source.epoch,
        weights_sha256=weights_sha256,
        config_hash=source.experiment.hash(),
        time=now(),
    )
    write_json(run.continued_from, asdict(origin))


def read_origin(run: RunPaths) -> Origin | None:
    """What training began with; None where that were random weights.

    Raises:
        RunError: the file is damaged.
    """
    return _read(run.continued_from, _ORIGIN)


def write_pretrained(run: RunPaths, found: Pretrained) -> None:
    """Publish ``pretrained.json``."""
    write_json(run.pretrained, asdict(found))


def read_pretrained(run: RunPaths) -> Pretrained | None:
    """The pretrained weights that training began with; None where there were none.

    Raises:
        RunError: the file is damaged.
    """
    return _read(run.pretrained, _PRETRAINED)


def _read(path: Path, kind: TypeAdapter[Record]) -> Record | None:
    try:
        return kind.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise RunError(f"{path} is damaged; delete it to continue without that record") from None


def _in_words(model: dict[str, object]) -> str:
    return f"{model['name']}{' with softmax output' if model.get('softmax_output') else ''}"
