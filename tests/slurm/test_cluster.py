"""The cluster of the tests does what the tests of launching on SLURM build on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")
WAIT_FOR_SIGNAL = """\
srun bash -c '
  trap "echo signalled" USR2
  echo start ${SLURM_RESTART_COUNT:-0} on $SLURMD_NODENAME
  for _ in $(seq 300); do [ "${SLURM_RESTART_COUNT:-0}" = 1 ] && exit 0; sleep 0.2; done'
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


def test_a_higher_partition_preempts_with_a_signal_and_a_requeue(slurm):
    # without --signal nothing is sent ahead of the end
    job = slurm.sbatch(WAIT_FOR_SIGNAL, *TWO_NODES, "-p", "low", "--exclusive", "--signal=USR2@60")
    slurm.wait_until_logged(job, "on n1")
    urgent = slurm.sbatch("sleep 1", *TWO_NODES, "-p", "high", "--exclusive")
    slurm.wait_until_logged(job, "signalled")
    slurm.wait_for(urgent, "COMPLETED")
    slurm.wait_until_logged(job, "start 1 on n1")
    assert slurm.wait_for(job, "COMPLETED")["Restarts"] == "1"


def test_a_time_limit_is_announced_by_a_signal(slurm):
    job = slurm.sbatch(WAIT_FOR_SIGNAL, *TWO_NODES, "--time=1", "--signal=USR2@50")
    slurm.wait_until_logged(job, "signalled")
    assert slurm.state(job) == "RUNNING"


def test_scontrol_requeue_starts_a_job_again(slurm):
    job = slurm.sbatch(WAIT_FOR_SIGNAL, *TWO_NODES)
    slurm.wait_until_logged(job, "start 0 on n1")
    slurm.output("scontrol", "requeue", job)
    assert slurm.wait_for(job, "COMPLETED")["Restarts"] == "1"
    assert "start 1 on n1" in slurm.log(job)


def test_a_failed_node_requeues_its_jobs(slurm):
    job = slurm.sbatch(WAIT_FOR_SIGNAL, *TWO_NODES)
    slurm.wait_until_logged(job, "start 0 on n1")
    assert {p.name() for p in slurm.cluster.processes("n1")} == {"slurmd", "slurmstepd"}
    slurm.cluster.kill_node("n1")
    assert not slurm.cluster.processes("n1")
    slurm.wait_for(job, "PENDING", timeout_s=40)
    slurm.cluster.start_node("n1")
    assert slurm.wait_for(job, "COMPLETED")["Restarts"] == "1"


def test_an_array_over_the_limit_is_refused(slurm):
    script = slurm.folder / "array.sh"
    script.write_text("#!/bin/bash\n")
    assert slurm.run("sbatch", "--array=0-5", script).returncode == 0
    refused = slurm.run("sbatch", "--array=0-6", script)
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
    program = [sys.executable, Path(__file__).with_name("cluster.py"), "start"]
    before = {p.pid for p in slurm.cluster.processes("slurmctld")}
    printed = subprocess.check_output(program, text=True, timeout=10)
    assert printed == f"export SLURM_CONF={os.environ['SLURM_CONF']}\n"
    assert {p.pid for p in slurm.cluster.processes("slurmctld")} == before
