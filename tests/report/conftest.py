"""Runs to report on, made once where a test only reads them."""

from pathlib import Path

import pytest

from cardamage.config import loading
from cardamage.report.load import RunResults, load_run
from cardamage.runs.paths import RunPaths
from tests.helpers.finished_runs import make_run


def load(run: RunPaths) -> RunResults:
    return load_run(run, loading.load(run.config))


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> RunResults:
    """A run of 6 epochs, tested on 10 images of two classes."""
    return load(make_run(tmp_path_factory.mktemp("runs") / "unet2"))


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """A run that a test may damage."""
    return make_run(tmp_path / "unet2", epochs=3, images=4)
