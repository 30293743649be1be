"""The public Python API: runs, their models, and submitting. ``import cardamage`` offers it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cardamage.commands.cancel import cancel
from cardamage.config.experiment import Experiment
from cardamage.errors import CardamageError, RunError
from cardamage.launch.planning.networks import prepare_networks
from cardamage.launch.planning.preflight import plan_checked
from cardamage.launch.watching.overview import overview
from cardamage.launch.watching.stopping import StopRequest
from cardamage.runs.checkpoints import best_epoch
from cardamage.runs.directory import as_tested, resolve
from cardamage.runs.lookup import RUNS_DIR, find_run
from cardamage.runs.paths import RunPaths, StudyPaths
from cardamage.runs.tables import Row, read_table

if TYPE_CHECKING:
    from cardamage.predict.model import TrainedModel

_POLL_S = 1.0


@dataclass(frozen=True)
class Run:
    """A run directory, and its experiment with every default filled in."""

    path: Path
    config: Experiment

    @property
    def metrics(self) -> Sequence[Row]:
        """The rows of ``metrics.csv``, one per epoch; none before the first has ended."""
        return read_table(self._paths.metrics) if self._paths.metrics.is_file() else []

    @property
    def test(self) -> Sequence[Row]:
        """The rows of ``test/<split>.csv``, one per checkpoint; none before it was tested."""
        split = as_tested(self._paths, self.config).test.split
        table = self._paths.test_table(split)
        return read_table(table) if table.is_file() else []

    @property
    def best_epoch(self) -> int | None:
        """The epoch that ``test.select_by`` chooses on the validation split; None without one."""
        return best_epoch(self.metrics, self.config.test.select_by)

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The checkpoint files by epoch, from 1."""
        return self._paths.finished_checkpoints()

    @property
    def report(self) -> Path:
        """Where the report lies once it is made."""
        return self._paths.report / "index.html"

    def model(self, checkpoint: str | int = "best", device: str | None = None) -> TrainedModel:
        """The network of a checkpoint: see :func:`load_model`."""
        return load_model(self.path, checkpoint, device)

    @property
    def _paths(self) -> RunPaths:
        return RunPaths(self.path)


@dataclass
class Submitted:
    """A run that was submitted; its directory may be made a moment later."""

    path: Path
    _launcher: subprocess.Popen[bytes] | None = None
    _said: IO[bytes] | None = field(default=None, repr=False)

    def status(self) -> dict[str, str]:
        """The state of each stage.

        It is waiting, queued, running, done, failed, stopped, cancelled or lost.
        """
        return {name: s.state for name, s in overview(RunPaths(self.path)).stages.items()}

    def wait(self, timeout_s: float | None = None) -> Run:
        """Wait until every stage is done, at most ``timeout_s`` seconds; the run as it then is.

        Raises:
            CardamageError: a stage failed, was stopped or cancelled.
            TimeoutError: it has not ended by then.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_over():
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{self.path} has not ended after {timeout_s:g} s")
            time.sleep(_POLL_S)
        said = ""
        if self._said and not self._said.closed:  # the runs of one study share it
            with self._said as stream:
                stream.seek(0)
                said = stream.read().decode(errors="replace").strip()
        for name, stage in overview(RunPaths(self.path)).stages.items():
            if stage.state != "done":
                last_words = said.rpartition("\n")[2].removeprefix("error: ")
                error = stage.error or last_words or f"it is {stage.state}"
                raise CardamageError(f"{self.path}: {name}: {error}")
        return load_run(self.path)

    def cancel(self) -> None:
        """Ask what runs to save and stop, cancel what waits, and wait until that is done.

        Raises:
            CardamageError: it had not stopped after two minutes.
        """
        launcher, record = self._launcher, RunPaths(self.path).launch
        while launcher is not None and launcher.poll() is None and not record.is_file():
            time.sleep(_POLL_S / 10)  # it has not got as far as its first stage
        if record.is_file():
            for _ in cancel([RunPaths(self.path)], StopRequest.STOP, timeout_s=120):
                pass

    def _is_over(self) -> bool:
        if self._launcher is not None and self._launcher.poll() is None:
            return False
        return not any(stage.is_active for stage in overview(RunPaths(self.path)).stages.values())


def load_run(run: str | Path, *, runs_dir: str | Path = RUNS_DIR) -> Run:
    """A run by its name, which is looked for in ``runs_dir``, or by its path.

    Raises:
        RunError: there is no such run.
        ConfigError: its ``config.yaml`` is wrong.
    """
    found = find_run(str(run), Path(runs_dir))
    if isinstance(found, StudyPaths):
        raise RunError(f"{found.root} is a study; name one of its runs")
    experiment, paths = resolve(found.root)
    return Run(paths.root, experiment)


def load_model(
    source: str | Path,
    checkpoint: str | int = "best",
    device: str | None = None,
    *,
    runs_dir: str | Path = RUNS_DIR,
) -> TrainedModel:
    """The network of a run or of a file, ready to predict.

    Args:
        source: a run's name or path; a .safetensors checkpoint or an exported .onnx, either of
            which is all that is needed; or ``user/name`` on the Hugging Face Hub.
        checkpoint: of a run: ``best``, ``last``, or an epoch from 1.
        device: where it computes, as in ``"cuda:1"``; the GPU where there is one when None.
        runs_dir: where a run lies that is given by name.

    Raises:
        RunError: there is no such run.
        CheckpointError: the checkpoint is missing, damaged, or of another network.
    """
    from cardamage.predict.chosen import choose_model  # noqa: PLC0415 - torch takes seconds

    return choose_model(str(source), str(checkpoint), Path(runs_dir), device=device).model


def submit(
    config: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    cluster: str | None = None,
    runs_dir: str | Path = RUNS_DIR,
) -> list[Submitted]:
    """Submit an experiment, sweep or study, as ``cardamage submit`` does, and return at once.

    On this machine a process of its own runs the stages, also once this one has ended.

    Args:
        config: a YAML file or a run, by name or path.
        overrides: values by dotted key, as in ``{"optim.lr": 3e-4}``.
        cluster: a profile's name or file; None for the default.
        runs_dir: where run directories lie.

    Raises:
        UserError: the config, the dataset or the profile is wrong; then nothing is started.
    """
    words = [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
    plan, cluster, *_ = plan_checked([str(config)], words, Path(runs_dir), cluster=cluster)
    prepare_networks(plan.plans, fetch=True)
    roots = [each.run.root for each in (*plan.plans, *plan.complete)]
    options = ["--runs-dir", str(runs_dir), "--cluster", cluster]
    said = tempfile.TemporaryFile()  # noqa: SIM115 - the handle keeps it
    launcher = subprocess.Popen(
        [sys.executable, "-m", "cardamage", "submit", str(config), *words, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
    )
    return [Submitted(root, launcher, said) for root in roots]
