"""The few words that the tests use to talk to SLURM."""

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.cluster import Cluster


class Slurm:
    """Commands to a real SLURM; ``folder`` is where jobs write, fresh for each test."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder

    def run(self, *command: object, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a SLURM command in ``folder`` and return how it ended."""
        words = [str(word) for word in command]
        return subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def output(self, *command: object, timeout_s: float = 60) -> str:
        """What a SLURM command prints; it has to succeed."""
        result = self.run(*command, timeout_s=timeout_s)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def sbatch(self, script: str, *options: str) -> str:
        """Submit the lines of a batch script; its log is ``job-<id>.log``. Returns the job id."""
        path = self.folder / "job.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        log = ["--open-mode=append", "--output=job-%j.log"]
        return self.output("sbatch", "--parsable", *log, *options, path)

    def log(self, job: str) -> str:
        """What a job printed so far."""
        path = self.folder / f"job-{job}.log"
        return path.read_text() if path.exists() else ""

    def show(self, job: str) -> dict[str, str]:
        """The fields of ``scontrol show job``; none once SLURM has forgotten the job."""
        found = self.run("scontrol", "show", "job", "-o", job)
        return dict(re.findall(r"(\S+?)=(\S*)", found.stdout)) if found.returncode == 0 else {}

    def state(self, job: str) -> str:
        """A job's state by the controller."""
        return self.show(job).get("JobState", "UNKNOWN")

    def wait_for_accounting(self, job: str, fields: str, values: str) -> None:
        """Wait until accounting, which lags a little, has ``values`` (``|`` between) of a job."""
        deadline = time.monotonic() + 60
        command = ("sacct", "-n", "-X", "-P", "-j", job, "-o", fields)
        while (found := self.run(*command).stdout.strip()) != values:
            if time.monotonic() > deadline:
                pytest.fail(f'accounting has "{found}" of job {job}, not "{values}"')
            time.sleep(0.2)

    def wait_for(self, job: str, *states: str, timeout_s: float = 120) -> dict[str, str]:
        """Wait until a job is in one of ``states`` and return its fields."""
        deadline = time.monotonic() + timeout_s
        while (fields := self.show(job)).get("JobState") not in states:
            if time.monotonic() > deadline:
                pytest.fail(f"job {job} is not {states}, but {fields}; its log:\n{self.log(job)}")
            time.sleep(0.2)
        return fields

    def wait_until_logged(
        self, job: str, text: str, times: int = 1, timeout_s: float = 120
    ) -> None:
        """Wait until a job has printed ``text`` so many times."""
        deadline = time.monotonic() + timeout_s
        while self.log(job).count(text) < times:
            if time.monotonic() > deadline:
                pytest.fail(f'job {job} printed no "{text}", but:\n{self.log(job)}{self.show(job)}')
            time.sleep(0.2)

    def jobs(self) -> set[str]:
        """The ids of all jobs that wait or run."""
        return set(self.output("squeue", "-h", "-o", "%A").split())
