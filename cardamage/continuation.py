"""Continuing another run: which checkpoint ``continue_from`` means, and whether it can serve.

The other run's weights are where training begins, and nothing else of it is taken over. Once the
run has saved a state of its own that is what it goes on from, whatever becomes of the other run.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from cardamage import config
from cardamage.config import ContinueFrom, Experiment
from cardamage.errors import ConfigError, RunError
from cardamage.files import write_json
from cardamage.paths import RunPaths
from cardamage.selection import best_epoch
from cardamage.stages import now, read_stage
from cardamage.tables import read_table


@dataclass(frozen=True)
class Source:
    """The checkpoint that a run continues from.

    Attributes:
        run: its run directory.
        experiment: that run's config.
        epoch: which epoch's checkpoint it is.
    """

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

    Attributes:
        run: the other run's directory.
        epoch: the epoch of its checkpoint.
        weights_sha256: hex SHA-256 of that checkpoint's file.
        config_hash: of the other run's config.
        time: when training began with them, ISO 8601 in UTC.
    """

    run: str
    epoch: int
    weights_sha256: str
    config_hash: str
    time: str


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
    theirs = config.load(other.config)
    check_fits(experiment, theirs, other)
    there = other.finished_checkpoints()
    if isinstance(continued.checkpoint, int):
        epoch = continued.checkpoint
        check_epoch(epoch, theirs, other)
    else:
        trained = read_stage(other, "train")
        epochs = theirs.train.epochs
        if trained.state != "done" or trained.output.get("epochs", 0) < epochs:
            raise RunError(
                f"{run.root} continues the {continued.checkpoint} checkpoint of {other.root}, "
                f"whose stage train is {trained.state} with {len(there)} of {epochs} epochs; train "
                f"it to its end, `python launch/submit.py {shlex.quote(str(other.root))}`, or name "
                f"an epoch, as in continue_from.checkpoint=1"
            )
        epoch = epochs
        if continued.checkpoint == "best":
            select_by = theirs.test.select_by
            best = best_epoch(read_table(other.metrics), select_by)
            if best is None:
                raise RunError(
                    f"no epoch of {other.root} has a validation {select_by}, so none is best; name "
                    f"an epoch, as in continue_from.checkpoint={epochs}"
                )
            epoch = best
    if epoch not in there:
        listed = ", ".join(map(str, there)) or "none"
        raise RunError(
            f"{run.root} continues epoch {epoch} of {other.root}, whose checkpoint is not there; "
            f"there are: {listed}; train it further, or name another continue_from.checkpoint"
        )
    return Source(other, theirs, epoch)


def check_fits(experiment: Experiment, theirs: Experiment, other: RunPaths) -> None:
    """Make sure that the weights of another run fit an experiment.

    Raises:
        ConfigError: they are of another model, or for other classes.
    """
    mine, its = (each.model.model_dump(mode="json") for each in (experiment, theirs))
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


def check_epoch(epoch: int, theirs: Experiment, other: RunPaths) -> None:
    """Make sure that another run trains up to an epoch.

    Raises:
        ConfigError: it ends before.
    """
    if epoch > theirs.train.epochs:
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
    try:
        return Origin(**json.loads(run.continued_from.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        raise RunError(
            f"{run.continued_from} is damaged; delete it to go on without that record"
        ) from None


def _in_words(model: dict[str, object]) -> str:
    return f"{model['name']}{' with softmax output' if model.get('softmax_output') else ''}"
