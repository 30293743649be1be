"""How long a save keeps training waiting, beside saves that are written at once, in one run.

    python benchmarks/saving.py                     unet2 and deeplabv3_resnet50, on CPU or GPU
    python benchmarks/saving.py --folder /scratch   where the states are written

All save weights and Adam's state. "behind" is what the training loop calls, while a thread checks
that the weights are finite, writes, flushes, hashes and renames. "at once" does the same in the
training thread. "bare" is torch.save, fsync and rename in the training thread, and no check. They
take turns; medians are shown. The "first" save behind allocates the memory that later ones use.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from machine import describe

from cardamage.config import experiment as config
from cardamage.config import loading
from cardamage.data.curation.synthetic import synthesize
from cardamage.data.shards.pack import pack
from cardamage.data.shards.reader import ShardReader
from cardamage.evaluation.confusion import Tally
from cardamage.models import build_model
from cardamage.runs.paths import RunPaths
from cardamage.system.files import publish
from cardamage.training.finite import FiniteCheck
from cardamage.training.optim import build_optimizer
from cardamage.training.saving import Saver
from cardamage.training.state import Training, write_state
from cardamage.training.steps import StepPlan
from cardamage.training.stopping import StopRequests

CLASSES = ("scratch", "dent", "broken lamp")


def main() -> None:
    """Measure each model, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["unet2", "deeplabv3_resnet50"])
    parser.add_argument("--saves", type=int, default=15, help="a row; default: %(default)s")
    parser.add_argument("--folder", type=Path, help="default: the system's for temporary files")
    arguments = parser.parse_args()
    accelerator = Accelerator()
    print(describe("torch"), f"; {accelerator.device}", sep="")
    print(f"{'model':>20} {'MB':>5} {'behind ms':>10} {'first ms':>9} ", end="")
    print(f"{'at once ms':>11} {'ratio':>6} {'bare ms':>8} {'ratio':>6}")
    for name in arguments.models:
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        try:
            waits = measure(name, folder, accelerator, arguments.saves)
        finally:
            shutil.rmtree(folder)
        behind_ms, at_once_ms, bare_ms = (
            1e3 * statistics.median(waits[how][1:]) for how in ("behind", "at once", "bare")
        )
        print(
            f"{name:>20} {waits['MB'][0]:5.0f} {behind_ms:10.1f} {1e3 * waits['behind'][0]:9.1f} "
            f"{at_once_ms:11.1f} {behind_ms / at_once_ms:6.1%} "
            f"{bare_ms:8.1f} {behind_ms / bare_ms:6.1%}",
            flush=True,
        )


def measure(
    name: str, folder: Path, accelerator: Accelerator, saves: int
) -> dict[str, list[float]]:
    """Seconds that training waits for each save, by the way of saving; and MB on disk."""
    synthesize(folder / "drawn", images=30, size=64, seed=0)
    size = (32, 32)
    classes = {name: [name] for name in CLASSES}
    shards = pack(folder / "drawn", classes=classes, image_size=size, shards_dir=folder / "shards")
    experiment = loading.parse(
        {
            "name": name,
            "data": {"source": "synthetic", "classes": list(CLASSES), "image_size": list(size)},
            "model": {"name": name},
            "optim": {"name": "adam"},
        }
    )
    run, training = RunPaths(folder / "run"), trained_once(experiment, accelerator)
    run.root.mkdir()
    waits: dict[str, list[float]] = {"behind": [], "at once": [], "bare": []}
    with ShardReader(shards, "train") as reader:
        plan = StepPlan(0, len(reader), 16, None, 0, 1)
        finite = FiniteCheck(run, experiment, plan, reader)

        def behind() -> None:
            saver.save()

        def at_once() -> None:
            state = training.state(training.tally.gather(accelerator))
            finite.weights(state["weights"], training.step)
            write_state(folder / "other" / "state.pt", state)

        def bare() -> None:
            state = training.state(training.tally.gather(accelerator))
            with publish(folder / "other" / "state.pt") as aside:
                torch.save(state, aside)

        with Saver(
            run=run,
            experiment=experiment,
            training=training,
            finite=finite,
            requests=StopRequests(accelerator),
            taken_up=None,
        ) as saver:
            for step in range(1, saves + 2):
                training.step = step
                for how, save in (("behind", behind), ("at once", at_once), ("bare", bare)):
                    started = waited_for(accelerator)
                    save()
                    waits[how].append(waited_for(accelerator) - started)
                    saver.wait()
    return {**waits, "MB": [run.state(step).stat().st_size / 1e6]}


def trained_once(experiment: config.Experiment, accelerator: Accelerator) -> Training:
    """A model and an optimiser after one step, so that Adam has all of its state."""
    model = build_model(experiment.model, 1 + len(CLASSES))
    optimizer = build_optimizer(experiment.optim, model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return Training(accelerator, model, optimizer, Tally(1 + len(CLASSES)), {})


def waited_for(accelerator: Accelerator) -> float:
    """The time, in seconds, once the device has done what it was given."""
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
