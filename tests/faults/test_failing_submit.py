"""A disk that is full for a file of the launcher: one clear line, nothing started, nothing lost."""

import errno
import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.children import Nursery
from tests.helpers.stage_results import ends_the_same, leftovers

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="builds a library with cc")

SUBMIT = ("launch/submit.py", "cars.yaml", "--cluster", "local", "--stages", "pack")


def test_each_file_of_the_launcher(nursery: Nursery, folder: Path, undisturbed: Path) -> None:
    run = folder / "runs/cars"
    for name in ("config.yaml", "launch.json", "stages/.pack.json", "logs/pack.log"):
        fault = {"FAULT_CALL": "write", "FAULT_ERRNO": str(errno.ENOSPC), "FAULT_PATH": name}
        child = nursery.run(folder, *SUBMIT, **fault)
        assert child.wait() == 2, (name, child.printed)
        assert f"{name.replace('/.', '/')}: No space left on device; make room there" in child.error
        assert child.leaves_nobody()
        assert leftovers(run) == []
        assert not (folder / "shards").exists()
        if (run / "launch.json").exists():  # then it does not say that a launcher is at work
            assert json.loads((run / "launch.json").read_text())["ended"]
    child = nursery.run(folder, *SUBMIT)
    assert child.wait() == 0, child.printed
    assert ends_the_same(nursery, folder, undisturbed, "pack")
