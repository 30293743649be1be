"""Batch normalisation on shares of a batch: what cannot work, and statistics of all processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from accelerate import Accelerator
from torch import nn

from cardamage.config import Experiment, TorchvisionModel
from cardamage.errors import ConfigError
from cardamage.training.plan import StepPlan


def check_batch_norm(experiment: Experiment, plan: StepPlan) -> None:
    """Refuse micro-batches of one image where BatchNorm would see one value per channel.

    Raises:
        ConfigError: DeepLabV3 pools each image to one pixel, whose variance is not defined.
    """
    pools = isinstance(experiment.model, TorchvisionModel) and (
        experiment.model.name == "deeplabv3_resnet50"
    )
    if pools and plan.smallest_micro_batch < 2:
        raise ConfigError(
            f"deeplabv3_resnet50 cannot train on one image at a time, which train.batch_size "
            f"{plan.batch_size}, train.micro_batch_size {plan.micro_batch_size} and "
            f"{plan.processes} processes come to; give every process 2 images or more"
        )


def synchronise_batch_norm(model: nn.Module, plan: StepPlan, accelerator: Accelerator) -> nn.Module:
    """The model with every BatchNorm normalising over the micro-batches of all processes.

    One process has nothing to synchronise: its model is left as it is.

    Raises:
        ConfigError: torch cannot do it on this device, or processes would wait for each other for
            ever, having unlike numbers of micro-batches.
    """
    if plan.processes == 1:
        return model
    if accelerator.device.type == "cpu":
        raise ConfigError(
            f"train.sync_batchnorm is true, and torch's SyncBatchNorm does not run on a CPU with "
            f"{plan.processes} processes; start one process, use GPUs, or set it to false"
        )
    ranks = [replace(plan, process=process) for process in range(plan.processes)]
    counts = sorted({len(rank.micro_batches) for rank in ranks})
    if len(counts) > 1:
        raise ConfigError(
            f"train.sync_batchnorm is true, and with train.batch_size {plan.batch_size} and "
            f"train.micro_batch_size {plan.micro_batch_size} some of the {plan.processes} "
            f"processes have {counts[0]} micro-batches a step, others {counts[-1]}; choose a "
            f"train.batch_size that {plan.processes} divides"
        )
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    return convert(model)
