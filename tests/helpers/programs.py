"""Running the project's programs as a person would."""

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

ROOT = Path(__file__).parents[2]


_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class Program:
    """Runs the project's programs from a folder of its own and keeps what they printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """This process's, with one thread: two tests' threads would wait for each other."""
        return {**os.environ, "OMP_NUM_THREADS": "1"}

    @staticmethod
    def script(name: str) -> Path:
        """The file of a program."""
        return ROOT / name

    def __call__(
        self, script: str, *args: object, timeout_s: float = 300, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``script`` (as in ``jobs/pack.py``) and return how it ended."""
        return subprocess.run(
            [sys.executable, str(self.script(script)), *map(str, args)],
            cwd=self.folder,
            env={**self.environment, **env},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def torchrun(
        self, processes: int, script: str | Path, *args: object, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``script`` in several processes on the CPU, which must succeed."""
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
        result = subprocess.run(
            [sys.executable, *launcher, str(self.script(str(script))), *map(str, args)],
            cwd=self.folder,
            env={**self.environment, "ACCELERATE_USE_CPU": "true", **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result

    def distributed(self, processes: int, script: str, *args: object, **env: str) -> str:
        """The log of :meth:`torchrun`."""
        return self.torchrun(processes, script, *args, **env).stderr

    def inside(self, script: str, *args: object) -> subprocess.CompletedProcess[str]:
        """Run ``script`` as its own main program, but in this process: torch is imported once."""
        argv = [script, *map(str, args)]
        output, errors = io.StringIO(), io.StringIO()
        handlers = {number: signal.getsignal(number) for number in _STOPPING}
        with (
            contextlib.chdir(self.folder),
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            patch.setattr(sys, "argv", argv)
            AcceleratorState._reset_state(reset_partial_state=True)
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(self.script(script)), run_name="__main__")
        for number, handler in handlers.items():
            signal.signal(number, handler)
        status = int(ended.value.code or 0)
        return subprocess.CompletedProcess(argv, status, output.getvalue(), errors.getvalue())

    def _run(
        self, script: str, *args: object, **options: object
    ) -> subprocess.CompletedProcess[str]:
        if script.startswith(("jobs/", "tests/helpers/")) and not options:
            return self.inside(script, *args)
        return self(script, *args, **options)

    def succeeds(self, script: str, *args: object, **options: object) -> str:
        """Run ``script``, which must end with 0, and return its standard output."""
        result = self._run(script, *args, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refuses(self, script: str, *args: object, **options: object) -> str:
        """Run ``script``, which must end with 2 and one clear line; return that line."""
        result = self._run(script, *args, **options)
        assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, result.stderr
        return lines[0]
