"""Submissions to a real SLURM, at work at the same time: how their graphs run and end."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from cardamage.launch.slurm.starts import read_starts
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.tables import read_table
from tests.helpers.programs import Program
from tests.helpers.slurm_commands import Slurm
from tests.helpers.submissions import (
    ONE_NODE,
    TOY,
    TWO_NODES,
    jobs_of,
    run_of,
    states,
    wait_until_over,
)

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

KILLING = """\
backend: slurm
starts_without_progress: 2
all_stages: {cpus_per_task: 1, time_minutes: 5}
# The stage's process dies before it can say a word.
pack: {setup: ['srun() { bash -c "kill -9 \\$\\$"; }']}
"""
FAULTY = """\
backend: slurm
starts_without_progress: 20
all_stages: {{cpus_per_task: 1, time_minutes: 5}}
pack: {{extra: {{{extra}}}}}
environment: {{PYTHONPATH: '{hook}', FAULT: '{fault}'}}
"""
HOOK = '''\
"""Nodes kill packing, as those with bad memory may; the first to do it twice in a row is bad."""

import os
import signal
import sys
from pathlib import Path

if "cardamage" in sys.orig_argv and "pack" in sys.orig_argv:
    fault, node = Path(os.environ["FAULT"]), os.environ["SLURMD_NODENAME"]
    killed = fault.read_text().split() if fault.exists() else []
    is_known = killed[-1:] * 2 == killed[-2:]
    if "mended" not in killed and (not is_known or killed[-1:] in ([], [node])):
        fault.write_text(" ".join([*killed, node]))
        os.kill(os.getpid(), signal.SIGKILL)
'''


class Graphs:
    """Programs in a folder of experiments and profiles, and the SLURM they submit to."""

    def __init__(self, slurm: Slurm, program: Program) -> None:
        self.slurm, self.program, self.folder = slurm, program, program.folder
        (self.folder / "hook").mkdir()
        (self.folder / "hook" / "sitecustomize.py").write_text(HOOK)
        told = f'notify.command=echo "$CARDAMAGE_STATE" >> "{self.folder}/told"'
        self.said = self.submit(f"{TWO_NODES}test: {{jobs: 2}}\n", "whole", options=(told,))
        self.following = subprocess.Popen(
            self.command(TWO_NODES, "fails", options=("optim.lr=1e30", "--follow")),
            cwd=self.folder,
            env=program.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        own = ("data.shards_dir=shards of its own",)  # or what others pack counts as its progress
        self.submit(KILLING, "killed", options=own)
        self.submit(self.faulty("bad-node"), "bad-node", options=("--stages", "pack"))
        trained = ("--stages", "pack,train", "train.epochs=1")
        self.submit(self.faulty("anew", "hold: true"), "anew", "with-it", options=trained)
        allocation = ["salloc", "-N1", "-n1", "-c1", "--mem-per-cpu=100", "srun"]
        self.inside = subprocess.run(
            [*allocation, "--mem-per-cpu=100", *self.command(ONE_NODE, "inside", options=trained)],
            cwd=self.folder,
            env=program.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def faulty(self, name: str, extra: str = "") -> str:
        """A profile whose jobs have a fault of their own."""
        hook, fault = self.folder / "hook", self.fault(name)
        return FAULTY.format(extra=extra, hook=hook, fault=fault)

    def fault(self, name: str) -> Path:
        return self.folder / f"fault of {name}"

    def command(self, profile: str, *names: str, options: tuple[str, ...] = ()) -> list[str]:
        """How experiments that differ in name are submitted."""
        for name in names:
            (self.folder / f"{name}.yaml").write_text(TOY.replace("name: toy", f"name: {name}"))
        cluster = self.folder / f"cluster-{names[0]}.yaml"
        cluster.write_text(profile)
        configs = [f"{name}.yaml" for name in names]
        script = str(Program.script("launch/submit.py"))
        return [sys.executable, script, *configs, "--cluster", str(cluster), *options]

    def submit(self, profile: str, *names: str, options: tuple[str, ...] = ()) -> str:
        """Submit experiments that differ in name; returns what was printed."""
        _, _, *arguments = self.command(profile, *names, options=options)
        return self.program.succeeds("launch/submit.py", *arguments)

    def run(self, name: str) -> RunPaths:
        return run_of(self.program, name)

    def ended(self, name: str) -> RunPaths:
        """A run, once SLURM has nothing of it any more."""
        run = self.run(name)
        wait_until_over(self.slurm, run)
        return run


@pytest.fixture(scope="module")
def graphs(cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graphs]:
    """Submissions that are at work together."""
    folder = tmp_path_factory.mktemp("graphs of jobs")
    slurm = Slurm(cluster, folder)
    before = slurm.jobs()
    made = Graphs(slurm, Program(folder))
    yield made
    made.following.kill()
    made.following.communicate()
    if left := slurm.jobs() - before:
        slurm.run("scancel", *left)


def scores(run: RunPaths) -> list[dict[str, object]]:
    """The table of the tests without the files' hashes: safetensors orders its header by chance."""
    return [{**row, "weights_sha256": None} for row in read_table(run.test_table("test"))]


def test_a_job_that_may_not_be_requeued_is_submitted_anew(graphs: Graphs):
    runs = [graphs.run("anew"), graphs.run("with-it")]
    first = jobs_of(runs[0])
    assert jobs_of(runs[1])["pack"] == first["pack"]
    graphs.slurm.output("scontrol", "update", f"JobId={first['pack']}", "Requeue=0")
    graphs.slurm.output("scontrol", "release", first["pack"])
    graphs.slurm.wait_for(first["pack"], "FAILED")
    graphs.fault("anew").write_text("mended")
    second = jobs_of(runs[0])["pack"]
    assert second != first["pack"]
    for run in runs:  # both wait for the job that took its place
        status = graphs.program.succeeds("launch/status.py", run.root, "--json")
        stages = json.loads(status)[0]["stages"]
        assert [stages[stage]["state"] for stage in ("pack", "train")] == ["queued", "queued"]
        assert stages["pack"]["job_id"] == second
        assert stages["pack"]["job"]["reason"] == "JobHeldUser"
        assert stages["train"]["job"]["reason"] == "Dependency"
        waits_for = graphs.slurm.show(jobs_of(run)["train"])["Dependency"]
        assert waits_for.startswith(f"afterok:{second}(")
    graphs.slurm.output("scontrol", "release", second)
    for run in runs:
        assert states(graphs.ended(run.root.name))[:2] == ["done", "done"], run.log("pack")
    assert "resubmitted as job" in runs[0].log("pack").read_text()


def test_a_node_that_kills_twice_is_avoided(graphs: Graphs):
    run = graphs.ended("bad-node")
    assert read_stage(run, "pack").state == "done", run.log("pack").read_text()
    nodes = [start.nodes for start in read_starts(run, "pack")]
    assert graphs.fault("bad-node").read_text().split() == nodes[:-1]
    assert [start.failed_node for start in read_starts(run, "pack")] == [*nodes[:-1], None]
    *_, once, twice, at_last = nodes
    assert once == twice != at_last
    shown = graphs.slurm.show(jobs_of(run)["pack"])
    assert (shown["Restarts"], shown["ExcNodeList"]) == (str(len(nodes) - 1), twice)


def test_the_limit_of_starts_that_bring_no_progress(graphs: Graphs):
    run = graphs.ended("killed")
    assert states(run) == ["failed", "cancelled", "cancelled", "cancelled"]
    assert len(read_starts(run, "pack")) == 2
    error = read_stage(run, "pack").error
    assert error is not None
    assert error.startswith("2 starts in a row brought no progress")


def test_a_stage_that_fails_ends_the_graph(graphs: Graphs):
    _, complaint = graphs.following.communicate(timeout=300)
    assert graphs.following.returncode == 1, complaint
    run = graphs.run("fails")
    assert not {*jobs_of(run).values()} & graphs.slurm.jobs()
    assert states(run) == ["done", "failed", "cancelled", "cancelled"]
    assert len(read_starts(run, "train")) == 1  # it would fail again
    said = graphs.program.succeeds("launch/status.py", "fails")
    assert re.search(r"train failed: the training loss became nan .*; log: .*/train\.log", said)


def test_nothing_of_an_allocation_reaches_the_jobs(graphs: Graphs):
    assert graphs.inside.returncode == 0, graphs.inside.stderr
    run = graphs.ended("inside")
    assert states(run)[:2] == ["done", "done"], run.log("train").read_text()


def test_two_nodes_get_the_metrics_of_two_processes_here(graphs: Graphs):
    run, program = graphs.ended("whole"), graphs.program
    assert states(run) == ["done"] * 4, run.log("train").read_text()
    jobs = jobs_of(run)
    assert list(jobs) == ["pack", "train", "test.0", "test.1", "test", "report"]
    assert graphs.said == f"whole: {', '.join(f'{stage} {job}' for stage, job in jobs.items())}\n"
    assert (run.report / "index.html").is_file()
    assert (graphs.folder / "told").read_text() == "done\n"  # by the last job
    assert read_stage(run, "train").job_id == jobs["train"]
    assert "process 1 on n1" in run.log("train").read_text()
    assert [read_stage(run, f"test.{i}").output["checkpoints"] for i in range(2)] == [1, 1]

    (graphs.folder / "here.yaml").write_text("backend: local\ntrain: {processes: 2}\n")
    trained = ("--stages", "pack,train,test", "--cluster", "here.yaml", "--runs-dir", "here")
    program.succeeds("launch/submit.py", "whole.yaml", *trained)
    here = RunPaths(graphs.folder / "here" / "whole")
    assert run.metrics.read_bytes() == here.metrics.read_bytes()
    there_weights, weights = (load_file(each.checkpoint(2)) for each in (run, here))
    assert list(there_weights) == list(weights)
    assert all((there_weights[name] == weights[name]).all() for name in weights)
    assert scores(run) == scores(here)

    again = program.succeeds("launch/submit.py", "whole.yaml", "--cluster", "cluster-whole.yaml")
    assert again == f"whole: nothing to do: {run.report / 'index.html'}\n"
