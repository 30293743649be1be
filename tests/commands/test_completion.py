"""What a shell is offered, asked as argcomplete asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cardamage su", {"submit"}),
        ("cardamage logs mi", {"mine"}),
        ("cardamage logs mine tr", {"train"}),
        ("cardamage submit smo", {"smoke", "smoke_rates"}),
        ("cardamage submit here", {"here.yaml"}),
        ("cardamage submit smoke --cluster lo", {"local"}),
        ("cardamage submit smoke --stages pack,tr", {"pack,train"}),
        ("cardamage predict mine --checkpoint la", {"last"}),
    ],
)
def test_completions(tmp_path: Path, line: str, offered: set[str]):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").touch()
    (tmp_path / "here.yaml").touch()
    out = tmp_path / "offered"
    variables = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    program = [sys.executable, "-m", "cardamage"]
    subprocess.run(program, cwd=tmp_path, env={**os.environ, **variables}, check=False)
    found = {word.strip() for word in out.read_text().split("\n") if word.strip()}
    assert found == offered
