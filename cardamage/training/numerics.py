"""The switch to algorithms that give the same bits every time."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cardamage.config.experiment import Experiment
from cardamage.config.recipe import SmpModel
from cardamage.errors import ConfigError
from cardamage.training.steps import StepPlan

_POOLING = {"deeplabv3_resnet50", "deeplabv3", "deeplabv3plus", "pan", "pspnet", "upernet"}
"""Networks that normalise the features of an image after pooling them to one pixel."""


@contextmanager
def deterministic_algorithms(*, enabled: bool) -> Iterator[None]:
    """Within the body, have torch use algorithms that give the same bits every time, or none.

    What torch has no such algorithm for is refused where it is met. On a CPU all that the networks
    here do has one; on a GPU bilinear upsampling gets a slower one from torch. cuBLAS reads its
    setting when it first works, so this is entered before any work on a GPU.

    Raises:
        ConfigError: an operation has no deterministic algorithm on the device.
    """
    if not enabled:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)  # noqa: FBT003 - takes no keyword
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        text = str(error).split(".")[0]
        raise ConfigError(
            f"train.deterministic is true, but {text} in torch {torch.__version__} on this device; "
            f"set it to false, or take another model"
        ) from None
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def check_batch_norm(experiment: Experiment, plan: StepPlan) -> None:
    """Refuse micro-batches of one image where BatchNorm would see one value per channel.

    Raises:
        ConfigError: DeepLabV3 and its like pool each image to one pixel, whose variance is not
            defined.
    """
    model = experiment.model
    name = model.architecture if isinstance(model, SmpModel) else model.name
    if name in _POOLING and plan.smallest_micro_batch < 2:
        raise ConfigError(
            f"{name} cannot train on one image at a time, which train.batch_size "
            f"{plan.batch_size}, train.micro_batch_size {plan.micro_batch_size} and "
            f"{plan.processes} processes come to; give every process 2 images or more"
        )


class _Float32(nn.Conv2d):
    """What a convolution that computes in float32 under autocast has before its own class."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(images.float())


def quicken_depthwise(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Have depthwise convolutions compute in float32 where bfloat16 is slower at them: on a CPU.

    oneDNN has no quick backward pass of them in bfloat16; one step of a U-Net on EfficientNet-lite0
    takes a fifth less time. The model is changed and returned; its weights keep their names.
    """
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        for layer in model.modules():
            if (
                isinstance(layer, nn.Conv2d)
                and layer.groups > 1
                and not isinstance(layer, _Float32)
            ):
                kind = type(layer)
                layer.__class__ = type(kind.__name__, (_Float32, kind), {})
    return model


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


def warm_up_ddp_buckets(model: nn.Module, accelerator: Accelerator, size: tuple[int, int]) -> None:
    """Have torch settle now in which order it adds up the gradients of several processes.

    It sorts them by the order in which the first backward pass gives them, for the passes after.
    Three processes or more then add in another order from the second step on, so that the first
    step after a resumption would differ in the last bit from the same step of an undisturbed run.
    After this pass every step is a later one. Parameters and buffers are left as they were.

    Args:
        size: height and width of an image, in pixels.
    """
    if accelerator.num_processes == 1:
        return
    kept = [buffer.clone() for buffer in model.buffers()]
    images = torch.rand(2, 3, *size, device=accelerator.device)
    accelerator.backward(model.train()(images).float().mean())
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), kept, strict=True):
            buffer.copy_(before)
    model.zero_grad()
