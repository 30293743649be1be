"""SIGKILL, SIGTERM and Ctrl-C at any moment of a stage: the same command ends it all the same."""

import signal
from pathlib import Path

import pytest

from cardamage.predict.outputs import SUMMARIES
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from tests.helpers.children import Nursery
from tests.helpers.stage_results import ends_the_same, leftovers, results, target

KILLS = 4
"""So many times each stage is killed, at moments spread over what it writes."""

STOPPED = 75


def seen(folder: Path) -> int:
    """How many files there are: a clock that runs with a stage's work."""
    return sum(1 for _ in folder.rglob("*"))


def same_so_far(folder: Path, undisturbed: Path) -> bool:
    """Whether all results there are equal the undisturbed ones."""
    found, expected = results(folder), results(undisturbed)
    return found == {name: expected[name] for name in found}


@pytest.mark.parametrize("stage", ["pack", "test", "report"])
def test_killed_again_and_again(nursery: Nursery, at, undisturbed: Path, stage: str) -> None:
    folder = at(stage)
    for more in range(1, KILLS + 1):
        before = seen(folder)
        child = nursery.start(folder, f"jobs/{stage}.py", target(stage))
        child.wait_until(lambda wanted=before + more: seen(folder) >= wanted)
        child.send(signal.SIGKILL)
        assert child.wait() in (-signal.SIGKILL, 0)  # it may have been quicker
        assert same_so_far(folder, undisturbed)
    assert ends_the_same(nursery, folder, undisturbed, stage)


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT,) * 2])
@pytest.mark.parametrize("stage", ["test", "report"])
def test_asked_to_stop(
    nursery: Nursery, at, undisturbed: Path, stage: str, signals: tuple[signal.Signals, ...]
) -> None:
    folder = at(stage)
    run = RunPaths(folder / "runs/cars")
    child = nursery.start(folder, f"jobs/{stage}.py", target(stage))
    child.wait_until(lambda: run.stage(stage).exists())
    for number in signals:
        child.send(number)
    assert child.wait() == STOPPED, child.printed
    assert "Traceback" not in child.printed
    assert child.printed.splitlines()[-1].startswith("stopped: ")
    assert child.leaves_nobody()
    assert same_so_far(folder, undisturbed)
    if len(signals) == 1:
        assert read_stage(run, stage).state == "stopped"
        assert leftovers(folder) == []
    assert ends_the_same(nursery, folder, undisturbed, stage)


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT,) * 2])
def test_predictions_asked_to_stop(
    nursery: Nursery, at, signals: tuple[signal.Signals, ...]
) -> None:
    folder = at("report")
    options = ("--images", "cars/train", "--out", "predicted", "--batch-size", "1")
    command = ("jobs/predict.py", "runs/cars", *options)
    out = folder / "predicted"
    child = nursery.start(folder, *command)
    child.wait_until(lambda: any(out.glob("*.png")))  # in the midst of writing
    for number in signals:
        child.send(number)
    assert child.wait() == STOPPED, child.printed
    assert "Traceback" not in child.printed
    assert child.printed.splitlines()[-1].startswith("stopped: ")
    assert child.leaves_nobody()
    written = {path: path.read_bytes() for path in out.glob("[!.]*")}
    assert not {path.name for path in written} & set(SUMMARIES)  # which say that all is there
    if len(signals) == 1:
        assert leftovers(out) == []
    assert nursery.run(folder, *command).wait() == 0
    assert leftovers(out) == []
    assert {path: path.read_bytes() for path in written} == written  # each was whole
    assert len(list(out.glob("*.overlay.jpg"))) == len(list((folder / "cars/train").glob("*.jpg")))
