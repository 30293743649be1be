"""One optimiser step, whatever the split into processes and micro-batches, by hand."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from cardamage.data.shards.loader import Batch
from cardamage.evaluation.confusion import Tally
from cardamage.models.inputs import normalise
from cardamage.training.losses import cross_entropy
from cardamage.training.outputs import EpochClock
from cardamage.training.state import Training
from cardamage.training.steps import StepPlan
from cardamage.training.train import train_step

SAMPLES, BATCH, CLASSES = 11, 7, 3
RNG = np.random.default_rng(0)
IMAGES = torch.from_numpy(RNG.integers(0, 256, (SAMPLES, 3, 8, 8), dtype=np.uint8))
MASKS = torch.from_numpy(RNG.integers(0, CLASSES, (SAMPLES, 8, 8), dtype=np.uint8))


def network() -> nn.Module:
    """Without BatchNorm, which sees micro-batches one by one."""
    torch.manual_seed(0)
    return nn.Conv2d(3, CLASSES, 3, padding=1)


def step_of(process: int, processes: int, micro_batch_size: int | None):
    """The gradient step that one process adds to the mean, and the tally of its images."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True)
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
    training = Training(accelerator, model, optimizer, Tally(CLASSES), {})
    plan = StepPlan(1, SAMPLES, BATCH, micro_batch_size, process, processes)
    batches = (Batch(IMAGES[s], MASKS[s], s) for s, _ in plan.requests(0, 1))
    train_step(training, plan, cross_entropy, EpochClock(batches))
    assert training.step == 1
    moved = [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]
    return moved, training.tally.gather(accelerator)


def whole_batch():
    """The gradient of the mean loss over the global batch, and each image's loss."""
    model = network()
    plan = StepPlan(1, SAMPLES, BATCH, None, 0, 1)
    ((samples, _),) = plan.requests(0, 1)
    losses = cross_entropy(model(normalise(IMAGES[samples])), MASKS[samples])
    losses.mean().backward()
    return [p.grad for p in model.parameters()], losses.detach()


@pytest.mark.parametrize("micro_batch_size", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_step_is_that_of_the_global_batch(processes, micro_batch_size):
    expected, losses = whole_batch()
    # Processes average their gradients; the shares of 7 images are unequal, and so are parts of 3.
    steps = [step_of(process, processes, micro_batch_size) for process in range(processes)]
    for number, gradient in enumerate(expected):
        mean = sum(moved[number] for moved, _ in steps) / processes
        assert torch.allclose(mean, gradient, atol=1e-6)
    assert torch.cat([rows["positions"] for _, rows in steps]).tolist() == list(range(BATCH))
    assert torch.allclose(torch.cat([rows["loss"] for _, rows in steps]).float(), losses)
