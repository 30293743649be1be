"""What tests of the jobs share: a run whose network is known, to predict with."""

import pytest

from tests.helpers.bright_network import write_run
from tests.helpers.fake_runs import fake  # noqa: F401


@pytest.fixture
def bright(program):
    """A folder with ``runs/bright`` and empty folders ``photos`` and ``masks``."""
    write_run(program.folder / "runs" / "bright")
    for name in ("photos", "masks"):
        (program.folder / name).mkdir()
    return program


@pytest.fixture
def refused(bright):
    """Runs the program, which must refuse and write nothing; gives its one line."""

    def line(*args):
        text = bright.refuses("jobs/predict.py", *args)
        assert not (bright.folder / "out").exists()
        return text

    return line
