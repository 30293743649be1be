"""Runs to report on, made once where a test only reads them."""

from pathlib import Path

import pytest
from finished_runs import make_run

from cardamage import config
from cardamage.paths import RunPaths
from cardamage.report.results import RunResults, load_run


def load(run: RunPaths) -> RunResults:
    return load_run(run, config.load(run.config))


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> RunResults:
    """A run of 6 epochs, tested on 10 images of two classes."""
    return load(make_run(tmp_path_factory.mktemp("runs") / "unet2"))


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """A run that a test may damage."""
    return make_run(tmp_path / "unet2", epochs=3, images=4)
