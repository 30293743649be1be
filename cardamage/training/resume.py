"""What training changes: put into a saved state, and taken up from one.

Random numbers need no state: every step draws its own from (seed, step, process).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from cardamage.errors import CheckpointError
from cardamage.paths import RunPaths
from cardamage.tables import Row
from cardamage.tally import Tally
from cardamage.training.states import State, last_state, read_state


@dataclass
class Training:
    """Everything that training changes.

    Attributes:
        accelerator: the one Accelerator, which prepared the model and the optimiser.
        model: as prepared.
        optimizer: as prepared.
        tally: per-image results of the unfinished epoch, of this process.
        origin: what the weights depend on besides the code, each with its hash: ``config`` and
            ``dataset``. A state of another origin is refused.
        rows: the rows of ``metrics.csv``: one for each finished epoch.
        step: optimiser steps done.
    """

    accelerator: Accelerator
    model: nn.Module
    optimizer: AcceleratedOptimizer
    tally: Tally
    origin: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    step: int = 0

    @property
    def module(self) -> nn.Module:
        """The model without what ``prepare`` wrapped around it."""
        module: nn.Module = self.accelerator.unwrap_model(self.model)
        return module

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
        }

    def take_up(self, run: RunPaths) -> Path | None:
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
                f"{path} does not fit this run ({problem}); delete it to go on from the one before"
            ) from None
        return path

    def _load(self, state: State) -> None:
        self.module.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:
            self.tally.restore(state["tally"])
        self.rows, self.step = state["rows"], state["step"]


def _check_origin(run: RunPaths, path: Path, state: State, origin: dict[str, str]) -> None:
    there = state.get("origin", {})
    for what, expected in origin.items():
        found = str(there.get(what, "none"))
        if found != expected:
            raise CheckpointError(
                f"{path} was trained with another {what} (hash {found[:16]}, not "
                f"{expected[:16]}); choose another name=..., or delete {run.root}"
            )
