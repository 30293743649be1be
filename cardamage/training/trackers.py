"""Experiment trackers, by Accelerate's classes: what a run shows elsewhere while it trains."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Self, assert_never
from uuid import uuid4

from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from cardamage.config.experiment import Experiment, Tracker
from cardamage.config.loading import flatten
from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import Row
from cardamage.system.console import log
from cardamage.system.files import write_text
from cardamage.training.outputs import Speed


def start_tracker(name: Tracker, run: RunPaths, next_epoch: int) -> GeneralTracker:
    """A tracker of ``run`` that continues with the scores of ``next_epoch``, from 1."""
    match name:
        case "tensorboard":  # what it was told of later epochs is hidden by purge_step
            tracker = TensorBoardTracker("tensorboard", run.root, purge_step=next_epoch)
        case "wandb":  # of the same id is the same run there; an epoch told twice is told once
            tracker = WandBTracker(
                "cardamage",
                name=run.root.name,
                id=_id(run, name),
                dir=run.root,
                resume="allow",
            )
        case "mlflow":
            tracker = _MLflow(run)
        case _:
            assert_never(name)
    tracker.start()
    return tracker


def _id(run: RunPaths, name: Tracker) -> str:
    """By what a tracker knows that two starts are one run."""
    path = run.root / f"{name}.id"
    if not path.exists():
        write_text(path, uuid4().hex)
    return path.read_text(encoding="utf-8")


class _MLflow(MLflowTracker):  # type: ignore[misc]
    """A run in MLflow, by default in ``mlruns`` beside the run directory.

    It keeps every value that it is told, so it is told no epoch again.
    """

    def __init__(self, run: RunPaths) -> None:
        self._mark, self._told = _id(run, "mlflow"), set[int]()
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            # Files and no database: SQLite's locks fail on the file systems of some clusters.
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            os.environ["MLFLOW_TRACKING_URI"] = (run.root.parent / "mlruns").resolve().as_uri()
        super().__init__("cardamage", tags={"cardamage": self._mark}, run_name=run.root.name)

    def start(self) -> None:
        """Begin the run, or take up the one that an earlier start began."""
        import mlflow  # noqa: PLC0415 - it takes seconds

        found = mlflow.search_runs(
            search_all_experiments=True,
            filter_string=f"tags.cardamage = '{self._mark}'",
            output_format="list",
        )
        self.run_id = found[0].info.run_id if found else None
        super().start()
        history = mlflow.MlflowClient().get_metric_history(
            self.active_run.info.run_id, "train_loss"
        )
        self._told = {metric.step for metric in history}

    def log(self, values: Mapping[str, object], step: int | None = None) -> None:
        """Tell the scores of an epoch; brackets, which it does not take, become slashes."""
        if step not in self._told:
            super().log({_metric_name(key): value for key, value in values.items()}, step=step)


def _metric_name(column: str) -> str:
    return re.sub(r"[^\w\-. /:]", "_", column.replace("[", "/").removesuffix("]"))


class Trackers:
    """Every tracker the config names; one that fails is left out from then on, with a warning.

    Each is told the settings of the training, then the scores of each epoch.

    The last finished epoch is told again on entering: a kill may have come between its save and
    its telling.

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
        self._running: dict[Tracker, GeneralTracker] = {}

    def __enter__(self) -> Self:
        for name in self._names:
            self._attempt(name, self._start, name)
        if self._rows:
            self.log(self._rows[-1])
        return self

    def log(self, row: Row, speed: Speed | None = None) -> None:
        """Tell the scores of an epoch, and its speed where it was measured by this start."""
        values = {key: value for key, value in row.items() if key != "epoch"}
        if speed:
            values |= asdict(speed)
        for name, tracker in list(self._running.items()):
            self._attempt(name, tracker.log, values, step=row["epoch"])

    def __exit__(self, *_: object) -> None:
        for name, tracker in list(self._running.items()):
            self._attempt(name, tracker.finish)

    def _start(self, name: Tracker) -> None:
        tracker = start_tracker(name, self._run, max(1, len(self._rows)))
        if name != "tensorboard":  # which makes another run of them, at every start
            tracker.store_init_configuration(self._settings)
        self._running[name] = tracker

    def _attempt(
        self, name: Tracker, action: Callable[..., object], *args: object, **options: object
    ) -> None:
        try:
            action(*args, **options)
        except Exception as error:  # noqa: BLE001 - whatever it is, training is worth more
            self._running.pop(name, None)
            text = " ".join(str(error).split())[:200]
            log.warning("%s is left out from here on: %s: %s", name, type(error).__name__, text)
