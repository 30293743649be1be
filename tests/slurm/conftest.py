"""A running SLURM for the tests, and the few words they use to talk to it."""

import functools
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, ClusterError, taking_turns


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
        deadline = time.monotonic() + 20
        command = ("sacct", "-n", "-X", "-P", "-j", job, "-o", fields)
        while (found := self.run(*command).stdout.strip()) != values:
            if time.monotonic() > deadline:
                pytest.fail(f'accounting has "{found}" of job {job}, not "{values}"')
            time.sleep(0.2)

    def wait_for(self, job: str, *states: str, timeout_s: float = 30) -> dict[str, str]:
        """Wait until a job is in one of ``states`` and return its fields."""
        deadline = time.monotonic() + timeout_s
        while (fields := self.show(job)).get("JobState") not in states:
            if time.monotonic() > deadline:
                pytest.fail(f"job {job} is not {states}, but {fields}; its log:\n{self.log(job)}")
            time.sleep(0.2)
        return fields

    def wait_until_logged(self, job: str, text: str, times: int = 1, timeout_s: float = 30) -> None:
        """Wait until a job has printed ``text`` so many times."""
        deadline = time.monotonic() + timeout_s
        while self.log(job).count(text) < times:
            if time.monotonic() > deadline:
                pytest.fail(f'job {job} printed no "{text}", but:\n{self.log(job)}{self.show(job)}')
            time.sleep(0.2)

    def jobs(self) -> set[str]:
        """The ids of all jobs that wait or run."""
        return set(self.output("squeue", "-h", "-o", "%A").split())


@functools.cache
def started() -> tuple[bool, str]:
    """Start the cluster: whether this made it run, and in one line why it cannot run here."""
    was_running = Cluster().is_running()
    try:
        Cluster().start()
    except ClusterError as error:
        return False, f"no SLURM to test on: {error}"
    return not was_running, ""


def pytest_runtest_setup(item: pytest.Function) -> None:
    """Skip here what needs the cluster, not in the fixture: then the reason is printed once."""
    if "cluster" in item.fixturenames and (reason := started()[1]):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, for one test session at a time; one that was running goes on afterwards."""
    cluster = Cluster()
    cluster.start()
    lock = cluster.folder / "slurm.conf"  # of the cluster: it may serve several copies of the tests
    with taking_turns(lock), pytest.MonkeyPatch.context() as patch:
        cluster.start()
        for name in os.environ:
            if name.startswith(("SLURM_", "SBATCH_", "SRUN_")):
                patch.delenv(name)
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster
        if started()[0]:
            cluster.stop()


@pytest.fixture
def slurm(cluster: Cluster, tmp_path: Path) -> Iterator[Slurm]:
    """SLURM with every daemon up; afterwards the test's jobs are gone and daemons are up again."""
    slurm = Slurm(cluster, tmp_path)
    before = slurm.jobs()
    yield slurm
    cluster.start()
    if left := slurm.jobs() - before:
        slurm.run("scancel", "--signal=KILL", *left)
        slurm.run("scancel", *left)
