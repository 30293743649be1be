"""The saved states of a run on disk: the last two, each with its SHA-256 behind it.

A state is the truth of a run: checkpoints and ``metrics.csv`` are derived from it, so a kill
between two files leaves nothing that the next start cannot mend. It gets a name of its own before
the one before the last is removed: there is a whole one at every moment, and should the newest be
damaged later on, the one before it serves.
"""

import hashlib
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from cardamage.errors import CheckpointError, MachineFault, of_storage
from cardamage.evaluation.confusion import Tally
from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import Row
from cardamage.system.console import log
from cardamage.system.files import naming, publish
from cardamage.training.ema import AveragedModel

KEPT = 2
"""How many states stay on disk."""

State = dict[str, Any]
"""Tensors and plain values, by name; only such are ever unpickled."""

_DIGEST_BYTES = 32


def write_state(path: Path, state: State) -> None:
    """Publish ``state`` with its hash behind it; torch reads the file all the same."""
    with publish(path) as aside:
        torch.save(state, aside)
        with aside.open("rb+") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
            stream.seek(0, os.SEEK_END)
            stream.write(digest)


def read_state(path: Path) -> State:
    """The state at ``path``, its tensors on the CPU.

    Raises:
        CheckpointError: it cannot be read, or its bytes are not those that were written.
        MachineFault: the disk or the file server fails; the file may be whole all the same.
    """
    try:
        with naming(path), path.open("rb") as stream:
            if not _is_whole(stream):
                raise CheckpointError(
                    f"{path} is damaged: its bytes are not those that were written"
                )
            stream.seek(0)
            state: State = torch.load(stream, map_location="cpu", weights_only=True)
    except OSError as error:
        if isinstance(fault := of_storage(error), MachineFault):
            raise fault from None
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is no saved state ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is no saved state (it holds a {type(state).__name__})")
    return state


def last_state(run: RunPaths) -> tuple[Path, State] | None:
    """The newest state that is whole, and where it lies; None when there never was one.

    A warning names those that are newer and damaged. One that the disk does not give now is not:
    going on from the one before would throw away what the next start can read.

    Raises:
        CheckpointError: none is whole, or none is there beside checkpoints.
        MachineFault: one cannot be read now.
    """
    problems: list[str] = []
    for path in reversed(run.states().values()):
        try:
            state = read_state(path)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if problems:
            log.warning("%s; going on from %s, which was saved before", "; ".join(problems), path)
        return path, state
    if problems:
        raise CheckpointError(
            f"{'; '.join(problems)}; restore one of them, or delete {run.resume} and "
            f"{run.checkpoints} to train from the beginning"
        )
    if run.finished_checkpoints():
        raise CheckpointError(
            f"{run.checkpoints} holds checkpoints but the states in {run.resume} are gone, so "
            f"training cannot resume; restore them, or delete the checkpoints to train from the "
            f"beginning"
        )
    return None


def remove_old_states(run: RunPaths, kept: list[Path]) -> None:
    """Remove every state but those ``kept``."""
    for path in run.states().values():
        if path not in kept:
            path.unlink(missing_ok=True)


def _is_whole(stream: IO[bytes]) -> bool:
    content = stream.read()
    body, digest = memoryview(content)[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    return hashlib.sha256(body).digest() == digest


@dataclass
class Training:
    """Everything that training changes.

    Attributes:
        accelerator: the one Accelerator, which prepared the model and the optimiser.
        tally: per-image results of the unfinished epoch, of this process.
        origin: what the weights depend on besides the code, each with its hash: ``config`` and
            ``dataset``. A state of another origin is refused.
        averaged: the average of the weights over the steps; None where none is asked for.
        micro_batch_size: the most images a process takes at a time, where that was found by trying.
        rows: the rows of ``metrics.csv``: one for each finished epoch.
    """

    accelerator: Accelerator
    model: nn.Module
    optimizer: AcceleratedOptimizer
    tally: Tally
    origin: dict[str, str]
    averaged: AveragedModel | None = None
    micro_batch_size: int | None = None
    rows: list[Row] = field(default_factory=list)
    step: int = 0

    @property
    def module(self) -> nn.Module:
        """The model without what ``prepare`` wrapped around it."""
        module: nn.Module = self.accelerator.unwrap_model(self.model)
        return module

    @property
    def outcome(self) -> nn.Module:
        """What is validated and saved: the model with its averaged weights, if it has such."""
        return self.averaged.module if self.averaged else self.module

    def state(self, tally: dict[str, Tensor]) -> State:
        """All of it, with the rows that :attr:`tally` gathered; the tensors are the live ones."""
        scaler = self.accelerator.scaler
        return {
            "origin": self.origin,
            "step": self.step,
            "rows": list(self.rows),
            "tally": tally,
            "weights": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "micro_batch_size": self.micro_batch_size,
            **({"ema": self.averaged.module.state_dict()} if self.averaged else {}),
        }

    def resume(self, run: RunPaths) -> Path | None:
        """Go back to where the run was saved last; None when it was never saved.

        The first process chooses the file: another's view of a shared disk may be older.

        Returns:
            The saved state that was taken up.

        Raises:
            CheckpointError: every state is damaged, or the newest whole one is of another origin or
                does not fit, or there is none beside checkpoints.
            MachineFault: one cannot be read now.
        """
        is_main = self.accelerator.is_main_process
        found = last_state(run) if is_main else None
        if is_main and found:
            _check_origin(run, *found, self.origin)
        if self.accelerator.num_processes > 1:
            (path,) = broadcast_object_list([found[0] if found else None])
            if path and not is_main:
                found = path, read_state(path)
        if found is None:
            return None
        path, state = found
        try:
            self._load(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
                raise  # the device's doing
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise CheckpointError(
                f"{path} does not fit this run ({problem}); delete it to resume from the one before"
            ) from None
        return path

    def _load(self, state: State) -> None:
        self.module.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged:
            self.averaged.module.load_state_dict(state["ema"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:
            self.tally.restore(state["tally"])
        self.rows, self.step = state["rows"], state["step"]
        self.micro_batch_size = state.get("micro_batch_size")


def _check_origin(run: RunPaths, path: Path, state: State, origin: dict[str, str]) -> None:
    there = state.get("origin", {})
    for what, expected in origin.items():
        found = str(there.get(what, "none"))
        if found != expected:
            raise CheckpointError(
                f"{path} was trained with another {what} (hash {found[:16]}, not "
                f"{expected[:16]}); choose another name=..., or delete {run.root}"
            )
