"""The cluster of the tests does what the tests of launching on SLURM build on.

What it does to jobs, from time limits to nodes that fail, is in ``test_interruptions``.
"""

import os
import subprocess
import sys

import psutil
import pytest

from tests.helpers.cluster import DAEMONS
from tests.helpers.programs import ROOT

pytestmark = pytest.mark.slurm

TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")
WAIT_FOR_SIGNAL = """\
srun bash -c '
  trap "echo signalled" USR2
  echo start on $SLURMD_NODENAME
  for _ in $(seq 300); do sleep 0.2; done'
"""


def test_a_job_runs_on_two_nodes_and_is_accounted(slurm):
    script = "srun bash -c 'echo rank $SLURM_PROCID on $SLURMD_NODENAME'"
    job = slurm.sbatch(script, *TWO_NODES)
    slurm.wait_for(job, "COMPLETED")
    assert sorted(slurm.log(job).splitlines()) == ["rank 0 on n0", "rank 1 on n1"]
    slurm.wait_for_accounting(job, "State,NodeList,ExitCode", "COMPLETED|n[0-1]|0:0")


def test_a_signal_reaches_the_tasks_of_every_node(slurm):
    # and every process that a task started: those must ignore it, or die
    job = slurm.sbatch(WAIT_FOR_SIGNAL, *TWO_NODES)
    slurm.wait_until_logged(job, "on n0")
    slurm.wait_until_logged(job, "on n1")
    slurm.output("scancel", "--signal=USR2", job)
    slurm.wait_until_logged(job, "signalled", times=2)
    assert slurm.state(job) == "RUNNING"


def test_an_array_over_the_limit_is_refused(slurm):
    script = slurm.folder / "array.sh"
    script.write_text("#!/bin/bash\n")
    assert slurm.run("sbatch", "--array=0-2", script).returncode == 0
    refused = slurm.run("sbatch", "--array=0-3", script)
    assert refused.returncode == 1
    assert "Invalid job array specification" in refused.stderr


def test_jobs_run_while_accounting_is_down(slurm):
    slurm.cluster.stop_slurmdbd()
    job = slurm.sbatch("true")
    slurm.wait_for(job, "COMPLETED")
    assert slurm.run("sacct", "-j", job).returncode != 0


def test_gpus_are_numbered_for_jobs_that_ask(slurm):
    shown = ("bash", "-c", "echo gpus: $CUDA_VISIBLE_DEVICES")
    assert slurm.output("srun", "--gpus-per-node=2", *shown) == "gpus: 0,1"
    assert slurm.output("srun", *shown) == "gpus:"


def test_starting_twice_does_nothing(slurm):
    program = [sys.executable, "-m", "tests.helpers.cluster", "start"]
    before = {p.pid for p in slurm.cluster.processes("slurmctld")}
    printed = subprocess.check_output(program, text=True, timeout=120, cwd=ROOT)
    assert printed == f"export SLURM_CONF={os.environ['SLURM_CONF']}\n"
    assert {p.pid for p in slurm.cluster.processes("slurmctld")} == before


def test_a_cluster_with_other_settings_counts_for_nothing(slurm):
    conf = slurm.cluster.folder / "slurm.conf"
    text = conf.read_text()
    conf.write_text(f"{text}# of another version\n")
    assert not slurm.cluster.is_running()
    conf.write_text(text)
    assert slurm.cluster.is_running()


def test_a_cluster_that_was_killed_is_made_anew(slurm):
    held = slurm.sbatch("true", "--hold")
    running = slurm.sbatch("srun bash -c 'echo pid $$; sleep 300'")
    slurm.wait_until_logged(running, "pid ")
    orphan = psutil.Process(int(slurm.log(running).split()[-1]))
    daemons = [p for name in DAEMONS for p in slurm.cluster.processes(name)]
    assert len(daemons) > len(DAEMONS)  # step daemons, too
    for process in daemons:
        process.kill()
    psutil.wait_procs(daemons, timeout=120)
    assert not slurm.cluster.is_running()
    assert orphan.is_running()
    slurm.cluster.start()
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert not slurm.jobs()
    assert held not in slurm.output("sacct", "-n", "-X", "-o", "JobID")
    slurm.wait_for(slurm.sbatch("true"), "COMPLETED")
