import pytest
import torch
from accelerate import Accelerator
from torch import nn

from cardamage.errors import ConfigError
from cardamage.training.numerics import synchronise_batch_norm
from cardamage.training.steps import StepPlan


class OnGpu:
    """What is asked of an accelerator, for a machine without a GPU."""

    device = torch.device("cuda")


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def plan(batch_size: int, micro_batch_size: int | None, processes: int) -> StepPlan:
    return StepPlan(0, 100, batch_size, micro_batch_size, 0, processes)


def test_one_process_has_nothing_to_synchronise():
    model = network()
    assert synchronise_batch_norm(model, plan(8, None, 1), Accelerator(cpu=True)) is model


def test_several_processes_on_a_cpu_are_refused():
    with pytest.raises(ConfigError, match=r"does not run on a CPU with 2 processes; start one"):
        synchronise_batch_norm(network(), plan(8, None, 2), Accelerator(cpu=True))


def test_processes_with_unlike_numbers_of_micro_batches_are_refused():
    # 5 images: one process has 2, which are one micro-batch of at most 2; the other's 3 are two.
    with pytest.raises(ConfigError, match=r"have 1 micro-batches a step, others 2; .* 2 divides"):
        synchronise_batch_norm(network(), plan(5, 2, 2), OnGpu())


@pytest.mark.parametrize(("batch_size", "micro"), [(8, None), (8, 3), (5, None), (5, 3)])
def test_every_batch_norm_is_synchronised_on_gpus(batch_size, micro):
    model = synchronise_batch_norm(network(), plan(batch_size, micro, 2), OnGpu())
    assert isinstance(model[1], nn.SyncBatchNorm)
