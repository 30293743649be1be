"""Experiment trackers, by Accelerate's classes: what a run shows elsewhere.

Every start of training or testing opens the run that an earlier start began, and tells what the
tracker has not been told: whatever was killed or out of reach in between, each epoch is there once.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from math import isfinite
from typing import Any, Protocol, Self, assert_never
from uuid import uuid4

import numpy as np
from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)
from numpy.typing import NDArray

from cardamage.config.experiment import Experiment, Tracker
from cardamage.config.loading import flatten
from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import Row
from cardamage.system.console import log, read_events
from cardamage.system.files import write_text

Picture = NDArray[np.uint8]
"""RGB, uint8 (H, W, 3)."""

_MEASURED = ("seconds", "images_per_second", "data_wait_share", "peak_memory_bytes")
"""What the event of an epoch tells beside its scores."""

_PICTURES = "pictures"
"""Stands for a split where it is noted what was told."""

_PROJECT = "cardamage"


class _Run(Protocol):
    """A run in a tracker.

    ``split`` is the one that scores are of: train, or the tested one. ``at`` is the Unix time of an
    epoch's end, where it is known.
    """

    def start(self) -> None: ...
    def configure(self, settings: Mapping[str, Any]) -> None: ...
    def told(self, split: str) -> set[int]: ...
    def scores(
        self, values: Mapping[str, float], epoch: int, split: str, at: float | None
    ) -> None: ...
    def pictures(self, pictures: Mapping[str, Picture], epoch: int) -> None: ...
    def finish(self) -> None: ...


def run_in(name: Tracker, run: RunPaths) -> _Run:
    """The run of a run directory in a tracker, not started yet."""
    match name:
        case "tensorboard":
            return _TensorBoard(run)
        case "wandb":
            return _WandB(run)
        case "mlflow":
            return _MLflow(run)
        case "trackio":
            return _Trackio(run)
        case _:
            assert_never(name)


def _id(run: RunPaths, name: Tracker) -> str:
    """By what a tracker knows that two starts are one run."""
    path = run.root / f"{name}.id"
    if not path.exists():
        write_text(path, uuid4().hex)
    return path.read_text(encoding="utf-8")


class _TensorBoard:
    """Files in the run directory; each start writes all once more and hides what was before."""

    def __init__(self, run: RunPaths) -> None:
        self._tracker = TensorBoardTracker("tensorboard", run.root, purge_step=0)
        self.start, self.finish = self._tracker.start, self._tracker.finish

    def configure(self, settings: Mapping[str, Any]) -> None:
        lines = "\n".join(f"    {key}: {value}" for key, value in settings.items())
        self._tracker.log({"config": lines}, step=0)

    def told(self, split: str) -> set[int]:  # noqa: ARG002
        return set()

    def scores(
        self,
        values: Mapping[str, float],
        epoch: int,
        split: str,  # noqa: ARG002
        at: float | None,
    ) -> None:
        self._tracker.log(dict(values), step=epoch, walltime=at)

    def pictures(self, pictures: Mapping[str, Picture], epoch: int) -> None:
        for name, picture in pictures.items():
            self._tracker.log_images({name: picture[None]}, step=epoch, dataformats="NHWC")


class _Noted:
    """Of a tracker that cannot be asked what it was told: a note of it in the run directory."""

    def __init__(self, run: RunPaths, name: Tracker, tracker: GeneralTracker) -> None:
        self._tracker, self._note = tracker, run.root / f"{name}.told.json"
        self._told: dict[str, list[int]] = {}
        if self._note.is_file():
            self._told = json.loads(self._note.read_text(encoding="utf-8"))
        self.finish = tracker.finish
        self.configure = tracker.store_init_configuration

    def told(self, split: str) -> set[int]:
        return set(self._told.get(split, []))

    def note(self, epoch: int, split: str) -> None:
        self._told.setdefault(split, []).append(epoch)
        write_text(self._note, json.dumps(self._told))


class _WandB(_Noted):
    """Of the same id is the same run there; what comes after training has the epoch as its axis."""

    def __init__(self, run: RunPaths) -> None:
        tracker = WandBTracker(
            _PROJECT, name=run.root.name, id=_id(run, "wandb"), dir=run.root, resume="allow"
        )
        super().__init__(run, "wandb", tracker)

    def start(self) -> None:
        self._tracker.start()
        self._tracker.tracker.define_metric("test_*", step_metric="epoch")
        self._tracker.tracker.define_metric("valid_*", step_metric="epoch")

    def scores(
        self,
        values: Mapping[str, float],
        epoch: int,
        split: str,
        at: float | None,  # noqa: ARG002
    ) -> None:
        if split == "train":
            self._tracker.log(dict(values), step=epoch)
        else:  # a step that has passed is refused there
            self._tracker.log({**values, "epoch": epoch})
        self.note(epoch, split)

    def pictures(self, pictures: Mapping[str, Picture], epoch: int) -> None:
        import wandb  # noqa: PLC0415 - an extra

        shown = {name: wandb.Image(picture) for name, picture in pictures.items()}
        self._tracker.log({**shown, "epoch": epoch})
        self.note(epoch, _PICTURES)


class _Trackio(_Noted):
    """Of the same name is the same run there, so the name has a part that no other run has."""

    def __init__(self, run: RunPaths) -> None:
        name = f"{run.root.name}-{_id(run, 'trackio')[:8]}"
        tracker = TrackioTracker(_PROJECT, name=name, resume="allow", embed=False)
        super().__init__(run, "trackio", tracker)
        self.start = tracker.start

    def scores(
        self,
        values: Mapping[str, float],
        epoch: int,
        split: str,
        at: float | None,  # noqa: ARG002
    ) -> None:
        self._tracker.log(dict(values), step=epoch)
        self.note(epoch, split)

    def pictures(self, pictures: Mapping[str, Picture], epoch: int) -> None:
        import trackio  # noqa: PLC0415 - an extra

        shown = {name: trackio.Image(picture) for name, picture in pictures.items()}
        self._tracker.log(shown, step=epoch)
        self.note(epoch, _PICTURES)


class _MLflow:
    """A run in MLflow, by default in ``mlruns`` beside the run directory.

    It keeps every value that it is told, so it is asked first.
    """

    def __init__(self, run: RunPaths) -> None:
        # Left to itself it asks a server that is gone for minutes, and training waits.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            # Files and no database: SQLite's locks fail on the file systems of some clusters.
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            os.environ["MLFLOW_TRACKING_URI"] = (run.root.parent / "mlruns").resolve().as_uri()
        self._mark = _id(run, "mlflow")
        self._tracker = MLflowTracker(
            _PROJECT, tags={"cardamage": self._mark}, run_name=run.root.name
        )
        self.configure, self.finish = (
            self._tracker.store_init_configuration,
            self._tracker.finish,
        )

    def start(self) -> None:
        """Begin the run, or take up the one that an earlier start began."""
        import mlflow  # noqa: PLC0415 - it takes seconds

        found = mlflow.search_runs(
            search_all_experiments=True,
            filter_string=f"tags.cardamage = '{self._mark}'",
            output_format="list",
        )
        self._tracker.run_id = found[0].info.run_id if found else None
        self._tracker.start()

    def told(self, split: str) -> set[int]:
        if split == _PICTURES:  # of one name are one file there
            return set()
        import mlflow  # noqa: PLC0415 - it takes seconds

        run_id = self._tracker.tracker.info.run_id
        history = mlflow.MlflowClient().get_metric_history(run_id, f"{split}_loss")
        return {metric.step for metric in history}

    def scores(
        self,
        values: Mapping[str, float],
        epoch: int,
        split: str,  # noqa: ARG002
        at: float | None,
    ) -> None:
        """Tell the scores of an epoch; brackets, which it does not take, become slashes."""
        named = {_metric_name(key): value for key, value in values.items()}
        self._tracker.log(named, step=epoch, timestamp=None if at is None else int(at * 1000))

    def pictures(self, pictures: Mapping[str, Picture], epoch: int) -> None:  # noqa: ARG002
        import mlflow  # noqa: PLC0415

        for name, picture in pictures.items():
            mlflow.log_image(picture, artifact_file=f"{name}.png")


def _metric_name(column: str) -> str:
    return re.sub(r"[^\w\-. /:]", "_", column.replace("[", "/").removesuffix("]"))


class Trackers:
    """Every tracker the config names; one that fails is left out from then on, with a warning.

    On entering each is told the settings of the training and every epoch of ``rows`` that it does
    not know: a kill may have come between the save of an epoch and its telling, and a server may
    have been out of reach.

    Args:
        rows: of ``metrics.csv``, so far.
        enabled: whether this process is the one that tells them.
    """

    def __init__(
        self, experiment: Experiment, run: RunPaths, rows: Sequence[Row], *, enabled: bool
    ) -> None:
        self._names = experiment.track if enabled else []
        self._settings = flatten(experiment.training_settings())
        self._run, self._rows = run, rows
        self._running: dict[Tracker, _Run] = {}

    def __enter__(self) -> Self:
        for name in self._names:
            self._attempt(name, self._start, name)
        self.log(self._rows)
        return self

    def log(self, rows: Sequence[Row], split: str = "train") -> None:
        """Tell the scores of epochs: rows of ``metrics.csv``, or of the table of a tested split.

        An epoch that was trained is told with its speed and the memory it took.
        """
        ended = {e.get("epoch"): e for e in read_events(self._run.events) if e["event"] == "epoch"}
        for name, tracker in list(self._running.items()):
            self._attempt(name, _tell, tracker, rows, split, ended)

    def pictures(self, pictures: Mapping[str, Picture], epoch: int) -> None:
        """Tell pictures of samples, by their names, as the checkpoint of an epoch sees them."""
        for name, tracker in list(self._running.items()):
            if epoch not in tracker.told(_PICTURES):
                self._attempt(name, tracker.pictures, pictures, epoch)

    def __exit__(self, *_: object) -> None:
        for name, tracker in list(self._running.items()):
            self._attempt(name, tracker.finish)

    def _start(self, name: Tracker) -> None:
        tracker = run_in(name, self._run)
        tracker.start()
        tracker.configure(self._settings)
        self._running[name] = tracker

    def _attempt(self, name: Tracker, action: Callable[..., object], *args: object) -> None:
        try:
            with redirect_stdout(sys.stderr):  # standard output holds results only
                action(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, training is worth more
            self._running.pop(name, None)
            text = " ".join(str(error).split())[:200]
            log.warning("%s is left out from here on: %s: %s", name, type(error).__name__, text)


def _tell(
    tracker: _Run, rows: Sequence[Row], split: str, ended: Mapping[int, Mapping[str, Any]]
) -> None:
    """Tell those rows that a tracker does not know; ``ended`` are the events of trained epochs."""
    told, prefix = tracker.told(split), "" if split == "train" else f"{split}_"
    for row in rows:
        epoch = int(row["epoch"])
        if epoch in told:
            continue
        values = {f"{prefix}{key}": float(row[key]) for key in row if _is_score(key, row)}
        event = ended.get(epoch, {}) if split == "train" else {}
        values |= {key: event[key] for key in _MEASURED if event.get(key) is not None}
        tracker.scores(values, epoch, split, event.get("time"))


def _is_score(key: str, row: Row) -> bool:
    value = row[key]
    return key not in ("epoch", "images") and not isinstance(value, str) and isfinite(value)
