"""Taking up a saved state: whole, or refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from cardamage.errors import CheckpointError
from cardamage.evaluation.confusion import Tally
from cardamage.runs.paths import RunPaths
from cardamage.training.state import State, Training, read_state, write_state


def training(width: int = 2) -> Training:
    accelerator = Accelerator(cpu=True)
    model = nn.Conv2d(3, width, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters()))
    return Training(accelerator, model, optimizer, Tally(width), {"config": "c", "dataset": "d"})


def saved(run: RunPaths, change: Callable[[State], object]) -> Training:
    """What saved a state of step 5, which was changed before it was written."""
    first = training()
    first.model(torch.rand(1, 3, 4, 4)).sum().backward()
    first.optimizer.step()
    first.step, first.rows = 5, [{"epoch": 1}]
    state = first.state(first.tally.gather(first.accelerator))
    change(state)
    run.resume.mkdir(parents=True)
    write_state(run.state(5), state)
    return first


def test_a_state_is_taken_up_whole(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")
    assert training().resume(RunPaths(tmp_path / "new")) is None
    first, second = saved(run, lambda state: None), training()
    assert second.resume(run) == run.state(5)
    assert (second.step, second.rows) == (5, [{"epoch": 1}])
    for name, tensor in first.module.state_dict().items():
        assert torch.equal(second.module.state_dict()[name], tensor)
    assert torch.equal(
        second.optimizer.state_dict()["state"][0]["exp_avg"],
        first.optimizer.state_dict()["state"][0]["exp_avg"],
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda state: state.clear(), r"trained with another config \(hash none, not c\)"),
        (lambda state: state.pop("rows"), "does not fit this run .KeyError: 'rows'.; delete it"),
        (lambda state: state.update(tally={}), "does not fit this run .KeyError: 'positions'."),
        (lambda state: state.update(optimizer={}), "does not fit this run"),
        (lambda state: state.update(weights={}), "does not fit this run .RuntimeError: .*Missing"),
        (lambda state: state.update(weights=[1]), "does not fit this run .TypeError: "),
    ],
)
def test_a_whole_file_of_another_content_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[State], object], problem: str
) -> None:
    run = RunPaths(tmp_path / "run")
    saved(run, change)
    with pytest.raises(CheckpointError, match=rf"state-00000005\.pt.*{problem}") as refused:
        training().resume(run)
    assert "\n" not in str(refused.value)


def test_a_file_that_holds_no_state_is_damaged(tmp_path: Path) -> None:
    write_state(tmp_path / "state-00000005.pt", [1])  # type: ignore[arg-type]  # what is tested
    with pytest.raises(CheckpointError, match=r"pt is no saved state \(it holds a list\)$"):
        read_state(tmp_path / "state-00000005.pt")
