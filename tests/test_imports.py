"""What importing a part of the project brings in, seen in a fresh interpreter.

The import direction itself is checked by ``lint-imports``, which reads the code and does not look
inside other packages; here the code runs.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAUNCH = sorted(
    f"launch.{path.stem}" for path in (ROOT / "launch").glob("*.py") if path.stem != "__init__"
)
TORCH_FREE = [
    "cardamage.drawing",
    "cardamage.metrics",
    "cardamage.results",
    *sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("data", "report")
        for path in (ROOT / "cardamage" / folder).glob("*.py")
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


@pytest.mark.parametrize("module", ["cardamage.config", "cardamage.runs", "cardamage.stages"])
def test_config_needs_no_numpy(module: str):
    assert "numpy" not in imported_by([module])


@pytest.mark.parametrize("program", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.name)
def test_job_does_nothing_when_imported(program: Path):
    """Each job keeps its work under ``if __name__ == "__main__"``; spawned workers import it."""
    if program.stem == "__init__":
        return
    body = ast.parse(program.read_text()).body
    first = "if __name__ == '__main__':\n    "  # what cannot wait until after the imports
    firsts = {f"{first}{line}" for line in ("hold_usr2()", "os.environ['OMP_NUM_THREADS'] = '1'")}
    body = [statement for statement in body if ast.unparse(statement) not in firsts]
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for statement in body[1:-1]:
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        assert isinstance(statement, kinds) or docstring, ast.unparse(statement)
    assert ast.unparse(body[-1]) == "if __name__ == '__main__':\n    run_program(main)"
