"""The two states on disk: whole or refused, the older one where the newer is damaged."""

import logging

import pytest
import torch

from cardamage.errors import CheckpointError
from cardamage.runs.paths import RunPaths
from cardamage.training.state import last_state, read_state, remove_old_states, write_state


def state(step: int) -> dict:
    return {
        "step": step,
        "rows": [{"epoch": 1, "loss": 0.1}],
        "weights": {"w": torch.ones(9) * step},
    }


@pytest.fixture
def run(tmp_path):
    """A run with the states of steps 3 and 12."""
    run = RunPaths(tmp_path)
    for step in (3, 12):
        write_state(run.state(step), state(step))
    return run


def flip_a_bit(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_state_comes_back_as_it_was(run):
    path, found = last_state(run)
    assert path == run.resume / "state-00000012.pt"
    assert found["step"] == 12
    assert found["rows"] == [{"epoch": 1, "loss": 0.1}]
    assert torch.equal(found["weights"]["w"], torch.ones(9) * 12)


def test_one_bit_anywhere_is_noticed(run):
    whole = run.state(12).read_bytes()
    for at in (0, 40, len(whole) // 2, len(whole) - 33, len(whole) - 1):
        run.state(12).write_bytes(whole)
        flip_a_bit(run.state(12), at)
        with pytest.raises(CheckpointError, match=r"state-00000012\.pt is damaged"):
            read_state(run.state(12))


@pytest.mark.parametrize("left", [0, 10, 500])
def test_the_older_state_serves_where_the_newest_is_cut_off(run, left, caplog):
    run.state(12).write_bytes(run.state(12).read_bytes()[:left])
    with caplog.at_level(logging.WARNING, logger="cardamage"):
        path, found = last_state(run)
    assert (path, found["step"]) == (run.state(3), 3)
    (warning,) = caplog.messages
    assert "state-00000012.pt is damaged" in warning
    assert "going on from" in warning
    assert "state-00000003.pt" in warning


def test_damage_of_every_state_is_refused_in_one_line(run):
    for step in (3, 12):
        flip_a_bit(run.state(step), 100)
    with pytest.raises(CheckpointError) as refused:
        last_state(run)
    line = str(refused.value)
    assert "state-00000012.pt is damaged" in line
    assert "state-00000003.pt is damaged" in line
    assert "to train from the beginning" in line
    assert "\n" not in line


def test_no_state_is_no_state_unless_there_are_checkpoints(tmp_path):
    run = RunPaths(tmp_path)
    assert last_state(run) is None
    run.checkpoints.mkdir()
    run.checkpoint(1).touch()
    with pytest.raises(CheckpointError, match="are gone"):
        last_state(run)


def test_of_the_states_only_those_to_keep_stay(run):
    write_state(run.state(20), state(20))
    run.progress.write_text("{}")
    remove_old_states(run, [run.state(12), run.state(20)])
    assert sorted(path.name for path in run.resume.iterdir()) == [
        "progress.json",
        "state-00000012.pt",
        "state-00000020.pt",
    ]


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_state_that_would_run_code_is_refused(tmp_path, capsys):
    path = RunPaths(tmp_path).state(1)
    write_state(path, {"step": Evil()})
    with pytest.raises(CheckpointError, match="is no saved state"):
        read_state(path)
    assert "executed" not in capsys.readouterr().out
