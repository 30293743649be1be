"""Losses and weights that are no longer numbers: found before they are saved, the cause named.

Nothing is looked at after each step, which would wait for the device. Every save looks at all
losses since the last one, and at the weights it is about to write: what is on disk is sound.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardamage.config.experiment import Experiment
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import CardamageError
from cardamage.runs.paths import RunPaths
from cardamage.training.steps import StepPlan

_NAMED = 8


@dataclass(frozen=True)
class FiniteCheck:
    """Refuses what is not finite."""

    run: RunPaths
    experiment: Experiment
    plan: StepPlan
    reader: ShardReader

    def losses(self, rows: Mapping[str, Tensor]) -> None:
        """Refuse a training loss that is NaN or infinite; ``rows`` as a tally gathers them.

        Raises:
            CardamageError: a loss is; the message names the step and its images.
        """
        wrong = ~torch.isfinite(rows["loss"])
        if not bool(wrong.any()):
            return
        positions, loss = rows["positions"][wrong], rows["loss"][wrong][0].item()
        step = int(positions[0]) // self.plan.batch_size
        inside = positions[positions < (step + 1) * self.plan.batch_size] % self.plan.batch_size
        samples = self._samples(step)[inside.numpy()].tolist()
        raise CardamageError(
            f"the training loss became {loss} in step {step + 1}, for {len(samples)} of its "
            f"{self.plan.batch_size} images: {self._names(samples)}; {self._remedy()}"
        )

    def weights(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Refuse weights, on the CPU, that are not finite after ``step`` steps, all losses being.

        Raises:
            CardamageError: some are; the message names the images of the last step.
        """
        for name, tensor in weights.items():
            if not bool(torch.isfinite(tensor).all()):
                samples = self._samples(step - 1).tolist() if step else []
                raise CardamageError(
                    f"the weights {name} are not finite after step {step}, whose images were "
                    f"{self._names(samples)}; {self._remedy()}"
                )

    def _samples(self, step: int) -> NDArray[np.int64]:
        return self.plan.batch_at(step)[0]

    def _names(self, samples: list[int]) -> str:
        named = [
            f"{self.reader.info(sample)['file_name']} (sample {self.reader.keys[sample]})"
            for sample in samples[:_NAMED]
        ]
        more = f" and {len(samples) - _NAMED} more" if len(samples) > _NAMED else ""
        return ", ".join(named) + more

    def _remedy(self) -> str:
        lower = f"lower optim.lr, which is {self.experiment.optim.lr}, and "
        epochs = self.run.finished_checkpoints()
        if not epochs:
            return lower + "start a new run"
        return (
            f"{lower}continue from the last epoch under another name: name=... optim.lr=... "
            f"continue_from.run={shlex.quote(self.run.root.name)} "
            f"continue_from.checkpoint={max(epochs)}"
        )
