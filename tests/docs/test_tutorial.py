"""The tutorial works as it is written: its commands, in its order, in one folder."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_pages import ROOT, blocks

pytestmark = pytest.mark.slow

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def test_every_command_of_the_tutorial_works(program):
    commands = "".join(blocks(TUTORIAL, "sh"))
    assert commands.count("cardamage ") == len(commands.splitlines()) >= 9
    folder: Path = program.folder
    shim = folder / "bin" / "cardamage"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cardamage "$@"\n')
    shim.chmod(0o755)
    path = f"{shim.parent}{os.pathsep}{program.environment['PATH']}"
    result = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env={**program.environment, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "can be trained on; nothing is wrong" in result.stdout
    for page in ("runs/cars/report", "compared", "predicted"):
        assert (folder / page / "index.html").is_file()
    assert len(list((folder / "runs/cars/checkpoints").glob("*.safetensors"))) == 3
    assert list((folder / "runs/cars/export").glob("*.onnx"))
    assert list((folder / "preview").rglob("*.png")) or list((folder / "preview").rglob("*.jpg"))
