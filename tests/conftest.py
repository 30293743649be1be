"""What tests share: running a program as a person would, and what a clear error looks like."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Program:
    """Runs the project's programs from a folder of its own and keeps what they printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, script: str, *args: object, timeout_s: float = 300, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``script`` (as in ``jobs/pack.py``) and return how it ended."""
        return subprocess.run(
            [sys.executable, str(ROOT / script), *map(str, args)],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **env},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def succeeds(self, script: str, *args: object, **options: object) -> str:
        """Run ``script``, which must end with 0, and return its standard output."""
        result = self(script, *args, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refuses(self, script: str, *args: object, **options: object) -> str:
        """Run ``script``, which must end with 2 and one clear line; return that line."""
        result = self(script, *args, **options)
        assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, result.stderr
        return lines[0]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Programs run in a fresh folder whose name has a space in it."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    return Program(folder)
