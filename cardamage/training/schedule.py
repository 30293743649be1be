"""Learning rates as a pure function of the step, so that a resumed run takes the very same ones."""

import math
from typing import assert_never

from torch import optim

from cardamage.config import recipe
from cardamage.training.steps import StepPlan


class Schedule:
    """Scales the learning rates an optimiser was built with.

    Args:
        settings: the config's ``schedule`` section.
        optimizer: its parameter groups have the highest rates, as built.
    """

    def __init__(
        self,
        settings: recipe.Schedule,
        optimizer: optim.Optimizer,
        plan: StepPlan,
        epochs: int,
    ) -> None:
        self._settings, self._optimizer = settings, optimizer
        self._highest = [group["lr"] for group in optimizer.param_groups]
        self._warm_up = round(settings.warmup_epochs * plan.samples / plan.batch_size)
        self._steps = plan.steps_until(epochs)
        self._cool_down: tuple[int, int] | None = None

    def cool_down(self, first: int, last: int) -> None:
        """From step ``first`` on, let the rates fall along a line that is 0 at step ``last``."""
        self._cool_down = first, last

    def factor(self, step: int) -> float:
        """What the rates of ``step``, from 0, are multiplied by; 0 to 1."""
        if self._cool_down and step >= self._cool_down[0]:
            first, last = self._cool_down
            return self._planned(first) * (last - step) / (last - first)
        return self._planned(step)

    def _planned(self, step: int) -> float:
        if step < self._warm_up:
            return (step + 1) / (self._warm_up + 1)
        progress = (step - self._warm_up) / (self._steps - self._warm_up)
        return factor_at(self._settings, progress)

    def rate(self, step: int) -> float:
        """The learning rate of ``step``, from 0: that of the first parameter group."""
        return float(self._highest[0] * self.factor(step))

    def set_rates(self, step: int) -> None:
        """Give every parameter group its rate of ``step``, from 0."""
        factor = self.factor(step)
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * factor


def factor_at(settings: recipe.Schedule, progress: float) -> float:
    """What the highest rate is multiplied by behind the warm-up.

    Args:
        settings: the config's ``schedule`` section.
        progress: the share of the steps behind the warm-up that are done, 0 up to but without 1.
    """
    match settings:
        case recipe.ConstantSchedule():
            return 1.0
        case recipe.CosineSchedule():  # without restarts: https://arxiv.org/abs/1608.03983, (5)
            return (1 + math.cos(math.pi * progress)) / 2
        case recipe.PolySchedule():  # https://arxiv.org/abs/1606.00915, 4.1
            return float((1 - progress) ** settings.power)
        case recipe.OneCycleSchedule(rise=rise, start=start, end=end):
            # https://arxiv.org/abs/1708.07120, with halves of cosines in place of lines
            if progress < rise:
                return start + (1 - start) * (1 - math.cos(math.pi * progress / rise)) / 2
            down = (progress - rise) / (1 - rise)
            return end + (1 - end) * (1 + math.cos(math.pi * down)) / 2
        case _:
            assert_never(settings)
