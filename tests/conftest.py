"""What tests share: a folder to run programs in, and a small experiment."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.helpers.programs import Program

os.environ["CARDAMAGE_CLUSTER"] = "local"  # also where the machine has a SLURM
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of a thousand programs compiles anew
settings.register_profile("on a busy machine", deadline=None)
settings.load_profile("on a busy machine")
torch.set_num_threads(1)  # as the programs started here: sums in another order end otherwise

SHARING = ("tests/report/", "tests/export/", "tests/evaluation/test_evaluate", "tests/test_wheel")
"""Files of tests that share what takes seconds to make."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Of the processes that share the tests give one all of those on SLURM, and give it them first.

    Some of them disturb the cluster, and they take longest, mostly waiting. Tests that share what
    takes seconds to make stay together, too; all others go to whoever is free.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):  # the scopes with most tests first
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(("tests/slurm/", "tests/faults/")):
                return nodeid.split("/")[1]
            file = nodeid.partition("::")[0]
            return file if file.startswith(SHARING) else nodeid

    return Together(config, log)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Programs run in a fresh folder whose name has a space in it."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    return Program(folder)


TOY = """\
name: toy
data:
  source: synthetic
  synthetic: {images: 30, size: 48}
  classes: [scratch, dent, broken lamp]
  image_size: [32, 32]
model: {name: segnet2}
optim: {name: adam, lr: 0.003}
train: {epochs: 2, batch_size: 8}
"""
"""An experiment whose four stages take seconds: 21 training, 5 validation, 4 test images or so."""


@pytest.fixture(scope="session")
def toy_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy experiment's shards, packed once for all tests."""
    folder = tmp_path_factory.mktemp("packed once")
    (folder / "toy.yaml").write_text(TOY)
    Program(folder).succeeds("jobs/pack.py", "toy.yaml")
    return folder / "shards"


@pytest.fixture
def toy(program: Program, toy_shards: Path) -> Program:
    """Programs in a fresh folder with ``toy.yaml``, whose run ``runs/toy`` is packed."""
    where = f"  shards_dir: {toy_shards}\n  classes"
    (program.folder / "toy.yaml").write_text(TOY.replace("  classes", where))
    program.succeeds("jobs/pack.py", "toy.yaml")
    return program
