"""No pickle of a foreign file is opened: each of these would make a folder if it were."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cardamage.errors import CheckpointError, RunError
from cardamage.evaluation.results import read_result
from cardamage.training.checkpoint import load_checkpoint
from cardamage.training.state import read_state


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """The folder that is made when a trap is sprung."""
    return tmp_path / "opened"


def test_the_trap_works(opened: Path):
    pickle.loads(pickle.dumps(Trap(opened)))
    assert opened.is_dir()


def test_a_saved_state(opened: Path, tmp_path: Path):
    path = tmp_path / "state.pt"
    torch.save({"model": torch.zeros(2), "step": Trap(opened)}, path)
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())  # as a whole state ends
    with pytest.raises(CheckpointError, match="is no saved state"):
        read_state(path)
    assert not opened.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint(opened: Path, tmp_path: Path, legacy: bool):
    path = tmp_path / "epoch-0001.safetensors"
    torch.save({"w": Trap(opened)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not opened.exists()


def test_results_of_a_test(opened: Path, tmp_path: Path):
    path = tmp_path / "epoch-0001.npz"
    np.savez(path, epoch=np.array([Trap(opened)], dtype=object))
    with pytest.raises(RunError, match="is damaged"):
        read_result(path)
    path.write_bytes(pickle.dumps(Trap(opened)))
    with pytest.raises(RunError, match="is damaged"):
        read_result(path)
    assert not opened.exists()
