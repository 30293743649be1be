import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_runs import FakeRun

from launch.record import tagged


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeRun]:
    """A run of fake stages, in a folder whose name has a space in it."""
    folder = tmp_path / "a folder"
    folder.mkdir(exist_ok=True)
    made = FakeRun(folder)
    yield made
    if made.launcher and made.launcher.poll() is None:
        made.launcher.kill()
        made.launcher.communicate()
    for path in made.folder.glob("runs/*/launch.json"):
        for pid in tagged(json.loads(path.read_text())["tag"]):
            os.kill(pid, signal.SIGKILL)
