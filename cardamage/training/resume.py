"""What training changes, and the one file it is saved to and taken up from.

The file is the truth of a run: checkpoints and ``metrics.csv`` are derived from it, so a kill
between two files leaves nothing that the next start cannot mend. Random numbers need no state:
every step draws its own from (seed, step, process).
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from cardamage.errors import CheckpointError
from cardamage.files import publish, write_json
from cardamage.paths import RunPaths
from cardamage.tables import Row
from cardamage.tally import Tally


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

    def save(self, run: RunPaths) -> None:
        """Publish the state in place of the one before; every process takes part."""
        tally = self.tally.gather(self.accelerator)
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "origin": self.origin,
                "step": self.step,
                "rows": self.rows,
                "tally": tally,
                "weights": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler else {},
            }
            with publish(_path(run)) as aside:
                torch.save(state, aside)
            write_json(run.progress, {"epoch": len(self.rows), "step": self.step})
        self.accelerator.wait_for_everyone()

    def take_up(self, run: RunPaths) -> bool:
        """Go back to where the run was saved last; False when it was never saved.

        Raises:
            CheckpointError: the state is damaged, of another origin, or missing beside checkpoints.
        """
        state = _load(run, self.origin)
        if state is None:
            return False
        self.module.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:
            self.tally.restore(state["tally"])
        self.rows, self.step = state["rows"], state["step"]
        return True


def _load(run: RunPaths, origin: dict[str, str]) -> dict[str, Any] | None:
    """The state, its tensors on the CPU; only tensors and plain values are ever unpickled."""
    path = _path(run)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = {what: str(state["origin"][what]) for what in origin}
    except FileNotFoundError:
        if run.finished_checkpoints():
            raise CheckpointError(
                f"{run.checkpoints} holds checkpoints but {path} is gone, so training cannot go "
                f"on; restore it, or delete the checkpoints to train anew"
            ) from None
        return None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.PickleError):
        raise CheckpointError(
            f"{path} is damaged; delete {run.resume} and {run.checkpoints} to train anew"
        ) from None
    for what, expected in origin.items():
        if found[what] != expected:
            raise CheckpointError(
                f"{path} was trained with another {what} (hash {found[what][:16]}, not "
                f"{expected[:16]}); choose another name=..., or delete {run.root}"
            )
    return state


def _path(run: RunPaths) -> Path:
    return run.resume / "state.pt"
