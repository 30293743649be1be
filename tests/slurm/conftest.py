"""A running SLURM for the tests that need one."""

import functools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.cluster import Cluster, ClusterError, running
from tests.helpers.slurm_commands import Slurm


@functools.cache
def taken() -> tuple[ExitStack, str]:
    """Start the cluster and take it for this test session, or say in a line why it cannot run."""
    held = ExitStack()
    try:
        held.enter_context(running())
    except ClusterError as error:
        held.close()
        return held, f"no SLURM to test on: {error}"
    return held, ""


def pytest_runtest_setup(item: pytest.Function) -> None:
    """Skip here what needs the cluster, not in the fixture: then the reason is printed once."""
    if "cluster" in item.fixturenames and (reason := taken()[1]):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, for one test session at a time; one that was running goes on afterwards."""
    cluster = Cluster()
    with taken()[0], pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("SLURM_", "SBATCH_", "SRUN_")):
                patch.delenv(name)
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster


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
