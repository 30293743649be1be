"""Images a second of the training loop, beside two others and beside plain float32.

    python -m benchmarks.training
    python -m benchmarks.training --networks unet2 --image-px 256 --batch-size 16

At equal settings all three train the same network, channels last, in float32, with Adam, on one
batch of uint8 images that is held in memory and normalised in each step. The loop of torchvision's
references steps a poly schedule and reads the loss in every step; a Lightning Trainer has logging,
checkpoints and progress switched off. Ours also counts the confusion of every image.

"As recommended" is ours with ``train.mixed_precision: auto``, beside torchvision's loop as it
comes: float32, channels first. "From shards" is ours with the loader, beside one batch held.
"""

import argparse
import itertools
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks import drawn
from benchmarks.pairs import compare
from benchmarks.peers import peer, version_of
from benchmarks.served import Served, answer
from cardamage.config import loading
from cardamage.config.experiment import Experiment
from cardamage.data.shards.loader import Batch, load
from cardamage.data.shards.reader import ShardReader
from cardamage.models import build_model
from cardamage.models.inputs import normalise
from cardamage.training.distributed import is_quick_at_bf16, start_accelerator
from cardamage.training.losses import build_loss
from cardamage.training.outputs import EpochClock
from cardamage.training.start import build
from cardamage.training.steps import StepPlan
from cardamage.training.train import train_step

NETWORKS = {
    "unet2": {"name": "unet2"},
    "fcn_resnet50": {"name": "fcn_resnet50"},
    "smp unet, lite0": {"name": "smp", "weights": "none"},
}
FED = "smp unet, lite0"
"""The quickest network: it has the hardest time of waiting for data."""
AT_LEAST_S, AT_LEAST_STEPS = 0.7, 3
CLASSES = 1 + len(drawn.CLASSES)


def main() -> None:
    """Measure each network, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--image-px", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments)
        return
    with tempfile.TemporaryDirectory() as name:
        px = arguments.image_px
        arguments.shards = drawn.shards(Path(name), images=40, size=px)
        for network in arguments.networks:
            measure(network, arguments)


def measure(network: str, arguments: argparse.Namespace) -> None:
    """Compare the loops on one network."""
    contestants = {
        loop: Served(
            "benchmarks.training",
            *(loop, network, "--shards", arguments.shards),
            *("--image-px", arguments.image_px, "--batch-size", arguments.batch_size),
        )
        for loop in LOOPS
        if loop != "fed" or network == FED
    }  # all begin at once; then they wait for each other
    steps = {
        loop: max(AT_LEAST_STEPS, int(AT_LEAST_S * contestant.ask(2) / arguments.batch_size))
        for loop, contestant in contestants.items()
    }

    def rate(loop: str) -> Callable[[], float]:
        return partial(contestants[loop].ask, steps[loop])

    what = f"{network}, {arguments.image_px} px, batch {arguments.batch_size}"
    torchvision, lightning = "torchvision's reference loop", version_of("pytorch-lightning")
    tell = partial(compare, measured_in="images/s", packages=("torch", "accelerate"))
    ours = rate("ours")
    tell(f"training {what}", torchvision, ">= 1.0", ours, rate("torchvision"))
    tell(f"training {what}", lightning, ">= 1.0", ours, rate("lightning"))
    recommended, bar = rate("recommended"), ">= 1.2"
    claim = f"as recommended, {what}"
    if not is_quick_at_bf16():  # only channels_last is left then
        claim, bar = f"{claim}, a CPU without AMX", ">= 1.0"
    tell(claim, f"{torchvision}, fp32", bar, recommended, rate("torchvision-plain"))
    if network == FED:
        claim = f"training from shards, {what}"
        tell(claim, "one batch held", ">= 0.97", rate("fed"), recommended)
    for each in contestants.values():
        each.end()


def serve(arguments: argparse.Namespace) -> None:
    """Answer numbers of steps with images a second."""
    loop, network = arguments.serve
    with ShardReader(arguments.shards, "train") as reader:
        answer(LOOPS[loop](network, reader, arguments.batch_size))


def ours(
    network: str,
    reader: ShardReader,
    batch_size: int,
    *,
    precision: str = "no",
    fed: bool = False,
) -> Callable[[int], float]:
    """This project's step."""
    experiment = experiment_of(network, reader, batch_size, precision)
    accelerator = start_accelerator(precision)
    plan = StepPlan(0, len(reader), batch_size, None, 0, 1)
    training = build(experiment, plan, accelerator, reader.fingerprint)
    loss_of = build_loss(experiment.losses, reader.manifest.splits["train"].pixels)
    held = next(batches_of(reader, plan))
    batches = batches_of(reader, plan) if fed else itertools.repeat(held)

    def rate(steps: int) -> float:
        clock = EpochClock(batches)
        for _ in range(steps):
            train_step(training, plan, loss_of, clock)
        return clock.stop().images_per_second

    return rate


def torchvision_loop(
    network: str, reader: ShardReader, batch_size: int, *, channels_last: bool = True
) -> Callable[[int], float]:
    """The loop of torchvision's segmentation reference."""
    model, (images, target) = network_and_batch(network, reader, batch_size)
    if not channels_last:
        model = model.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / 1e6) ** 0.9)
    losses: list[float] = []

    def rate(steps: int) -> float:
        started = time.perf_counter()
        model.train()
        for _ in range(steps):
            pixels = normalise(images)
            if not channels_last:
                pixels = pixels.contiguous()
            loss = functional.cross_entropy(model(pixels), target, ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        return steps * batch_size / (time.perf_counter() - started)

    return rate


def lightning_loop(network: str, reader: ShardReader, batch_size: int) -> Callable[[int], float]:
    """A Lightning Trainer, with all that is optional switched off."""
    lightning = peer("pytorch_lightning", "pytorch-lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    model, batch = network_and_batch(network, reader, batch_size)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, target = batch
            return functional.cross_entropy(self.model(normalise(images)), target)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    class Stopwatch(lightning.Callback):
        started = ended = 0.0

        def on_train_batch_start(self, _trainer: object, _module: object, _: object, at: int):  # noqa: ANN202
            if at == 1:  # the first settles what there is to settle
                self.started = time.perf_counter()

        def on_train_batch_end(self, *_: object) -> None:
            self.ended = time.perf_counter()

    module = Module()

    def rate(steps: int) -> float:
        watch = Stopwatch()
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch],
        )
        # Bare, a list is taken for several loaders.
        trainer.fit(module, DataLoader([batch] * (steps + 1), batch_size=None))
        return steps * batch_size / (watch.ended - watch.started)

    return rate


def experiment_of(network: str, reader: ShardReader, batch_size: int, precision: str) -> Experiment:
    """The experiment of a network; Adam, cross-entropy, no augmentation."""
    data = {"source": "synthetic", "classes": [*drawn.CLASSES], "image_size": [*reader.image_size]}
    return loading.parse(
        {
            "name": "benchmark",
            "data": data,
            "model": NETWORKS[network],
            "optim": {"name": "adam"},
            "train": {"batch_size": batch_size, "mixed_precision": precision},
        }
    )


def network_and_batch(
    network: str, reader: ShardReader, batch_size: int
) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The same network and batch as ours."""
    experiment = experiment_of(network, reader, batch_size, "no")
    torch.manual_seed(0)
    batch = next(batches_of(reader, StepPlan(0, len(reader), batch_size, None, 0, 1)))
    return build_model(experiment.model, CLASSES), (batch.images, batch.masks.long())


def batches_of(reader: ShardReader, plan: StepPlan) -> Iterator[Batch]:
    """Training's batches, without end."""
    with closing(load(reader, map(plan.batch_at, itertools.count()), workers=2)) as batches:
        yield from batches


LOOPS = {
    "ours": ours,
    "recommended": partial(ours, precision="auto"),
    "fed": partial(ours, precision="auto", fed=True),
    "torchvision": torchvision_loop,
    "torchvision-plain": partial(torchvision_loop, channels_last=False),
    "lightning": lightning_loop,
}

if __name__ == "__main__":
    main()
