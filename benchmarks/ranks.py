"""Images a second of two processes on two cores, beside one process on one core.

    python -m benchmarks.ranks

Both train the same global batches from shards: each of the two processes does half of every batch,
and they add up their gradients by gloo.
"""

import argparse
import itertools
import os
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks import drawn
from benchmarks.pairs import compare
from benchmarks.served import Served, answer
from benchmarks.training import NETWORKS, experiment_of
from cardamage.data.shards.loader import load
from cardamage.data.shards.reader import ShardReader
from cardamage.training.distributed import start_accelerator
from cardamage.training.losses import build_loss
from cardamage.training.outputs import EpochClock
from cardamage.training.start import build
from cardamage.training.steps import StepPlan
from cardamage.training.train import train_step

AT_LEAST_S = 1.5


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="fcn_resnet50")
    parser.add_argument("--image-px", type=int, default=96, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments)
        return
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two ranks need two cores, and this process may use one")
    with tempfile.TemporaryDirectory() as name:
        arguments.shards = drawn.shards(Path(name), images=60, size=arguments.image_px)
        one, two = Ranks(1, arguments), Ranks(2, arguments)
        compare(
            f"two ranks on two cores, {arguments.network}, {arguments.image_px} px, "
            f"batch {arguments.batch_size}",
            "one rank on one core",
            ">= 1.5",
            two.rate,
            one.rate,
            measured_in="images/s",
            packages=("torch", "accelerate"),
        )
        one.end()
        two.end()


class Ranks:
    """Processes that train together, each on a core of its own."""

    def __init__(self, count: int, arguments: argparse.Namespace) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
        options = ("--shards", arguments.shards, "--network", arguments.network)
        options += ("--image-px", arguments.image_px, "--batch-size", arguments.batch_size)
        self._ranks = [
            Served(
                "benchmarks.ranks",
                *(rank, *options),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                ACCELERATE_USE_CPU="true",
                # Else Accelerate divides the cores itself, and two threads spin on one core.
                OMP_NUM_THREADS="1",
                **together,
            )
            for rank in range(count)
        ]
        self._steps = 2
        self._steps = 1 + int(AT_LEAST_S * self.rate() / arguments.batch_size)

    def rate(self) -> float:
        """Images a second, measured now."""
        with ThreadPoolExecutor(len(self._ranks)) as threads:
            asked = [threads.submit(rank.ask, self._steps) for rank in self._ranks]
            return min(each.result() for each in asked)

    def end(self) -> None:
        """End the processes."""
        for rank in self._ranks:
            rank.end()


def serve(arguments: argparse.Namespace) -> None:
    """One rank."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(arguments.serve)]})
    torch.set_num_threads(1)
    with ShardReader(arguments.shards, "train") as reader:
        accelerator = start_accelerator("no")
        experiment = experiment_of(arguments.network, reader, arguments.batch_size, "no")
        plan = StepPlan(
            seed=0,
            samples=len(reader),
            batch_size=arguments.batch_size,
            micro_batch_size=None,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        training = build(experiment, plan, accelerator, reader.fingerprint)
        loss_of = build_loss(experiment.losses, reader.manifest.splits["train"].pixels)
        endless = itertools.chain.from_iterable(
            plan.requests(step, step + 1) for step in itertools.count()
        )
        batches = load(reader, endless, workers=1)

        def rate(steps: int) -> float:
            clock = EpochClock(batches)
            for _ in range(steps):
                train_step(training, plan, loss_of, clock)
            return clock.stop().images_per_second

        answer(rate)
        batches.close()
        accelerator.end_training()


if __name__ == "__main__":
    main()
