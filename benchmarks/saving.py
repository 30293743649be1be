"""How long a save keeps training waiting, beside a save that is written at once, in one run.

    python benchmarks/saving.py                  unet2 and deeplabv3_resnet50, on the CPU or GPU
    python benchmarks/saving.py --folder /scratch   where the states are written

Both save weights and Adam's state. "at once" is torch.save, fsync and rename, and nothing more,
in the training thread; "behind" is what the training loop calls, while a thread writes. The two
alternate; medians are shown. The "first" save behind allocates the memory that all later ones use.
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

from cardamage import config
from cardamage.data.pack import pack
from cardamage.data.shards import ShardReader
from cardamage.data.synthetic import synthesize
from cardamage.files import publish
from cardamage.models import build_model
from cardamage.paths import RunPaths
from cardamage.tally import Tally
from cardamage.training.finite import FiniteCheck
from cardamage.training.optim import build_optimizer
from cardamage.training.plan import StepPlan
from cardamage.training.resume import Training
from cardamage.training.saving import Saver
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
    print(
        f"{'model':>20} {'MB':>6} {'at once ms':>11} {'behind ms':>10} {'first ms':>9} {'ratio':>7}"
    )
    for name in arguments.models:
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        try:
            size_mb, at_once_ms, behind_ms, first_ms = measure(
                name, folder, accelerator, arguments.saves
            )
        finally:
            shutil.rmtree(folder)
        ratio = behind_ms / at_once_ms
        print(
            f"{name:>20} {size_mb:6.0f} {at_once_ms:11.1f} {behind_ms:10.1f} {first_ms:9.1f} "
            f"{ratio:6.1%}",
            flush=True,
        )


def measure(
    name: str, folder: Path, accelerator: Accelerator, saves: int
) -> tuple[float, float, float, float]:
    """MB on disk, and milliseconds that training waits: at once, behind, and the first time."""
    synthesize(folder / "drawn", images=30, size=64, seed=0)
    size = (32, 32)
    classes = {name: [name] for name in CLASSES}
    shards = pack(folder / "drawn", classes=classes, image_size=size, shards_dir=folder / "shards")
    experiment = config.parse(
        {
            "name": name,
            "data": {"source": "synthetic", "classes": list(CLASSES), "image_size": list(size)},
            "model": {"name": name},
            "optim": {"name": "adam"},
        }
    )
    run, training = RunPaths(folder / "run"), trained_once(experiment, accelerator)
    run.root.mkdir()
    at_once_s, behind_s = [], []
    with ShardReader(shards, "train") as reader:
        plan = StepPlan(0, len(reader), 16, None, 0, 1)
        with Saver(
            run=run,
            experiment=experiment,
            training=training,
            finite=FiniteCheck(run, experiment, plan, reader),
            requests=StopRequests(accelerator),
            taken_up=None,
        ) as saver:
            for step in range(1, saves + 2):
                training.step = step
                started = waited_for(accelerator)
                saver.save()
                behind_s.append(waited_for(accelerator) - started)
                saver.wait()
                started = waited_for(accelerator)
                tally = training.tally.gather(accelerator)
                with publish(folder / "at once" / "state.pt") as aside:
                    torch.save(training.state(tally), aside)
                at_once_s.append(time.perf_counter() - started)
    return (
        run.state(step).stat().st_size / 1e6,
        1e3 * statistics.median(at_once_s[1:]),
        1e3 * statistics.median(behind_s[1:]),
        1e3 * behind_s[0],
    )


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
