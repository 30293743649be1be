"""What importing a part of the project brings in, seen in a fresh interpreter.

The import direction itself is checked by ``lint-imports``, which reads the code and does not look
inside other packages; here the code runs.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cardamage import cli

ROOT = Path(__file__).parents[1]
LAUNCH = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "cardamage" / "launch").rglob("*.py")
    if path.stem != "__init__"
)
TORCH_FREE = [
    "cardamage.data.drawing",
    "cardamage.evaluation.metrics",
    "cardamage.evaluation.results",
    *sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("data", "report")
        for path in (ROOT / "cardamage" / folder).rglob("*.py")
        if path.stem not in ("__init__", "loader")
    ),
]


def imported_by(modules: list[str]) -> set[str]:
    """The top-level packages in memory once ``modules`` are imported."""
    program = "import sys, json; " + "".join(f"import {name}; " for name in modules)
    program += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (result.returncode, result.stderr) == (0, "")  # importing says nothing
    return set(json.loads(result.stdout))


def test_launch_stays_light():
    assert LAUNCH
    slow = {"torch", "torchvision", "accelerate", "numpy", "matplotlib", "PIL", "pycocotools"}
    assert imported_by(LAUNCH) & slow == set()


def test_data_preparation_and_report_do_without_torch():
    assert imported_by(TORCH_FREE) & {"torch", "torchvision", "accelerate"} == set()


@pytest.mark.parametrize(
    "module", ["cardamage.config.experiment", "cardamage.runs.directory", "cardamage.runs.stages"]
)
def test_config_needs_no_numpy(module: str):
    assert "numpy" not in imported_by([module])


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_help_imports_neither_torch_nor_numpy(command: str):
    program = (
        "import atexit, sys; from cardamage import cli; "
        "atexit.register(lambda: print(sorted({'torch', 'numpy'} & set(sys.modules)))); "
        f"cli.main(['{command}', '--help'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.splitlines()[-1] == "[]"
