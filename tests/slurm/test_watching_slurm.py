"""status, logs and cancel, on jobs of a real SLURM whose stages behave as told."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cardamage.config.loading import load
from cardamage.launch.watching.queue import Queue, ask_accounting, ask_queue
from cardamage.launch.watching.record import check_free, new_launch, read_launch
from cardamage.runs.directory import open_run
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import StageRecord, now, read_stage
from cardamage.system.files import write_json
from tests.helpers.markers import write_stage
from tests.helpers.programs import ROOT, Program

pytestmark = pytest.mark.slurm

CONFIG = """\
name: {name}
data: {{source: synthetic, classes: [scratch, dent], image_size: [32, 32]}}
model: {{name: segnet2}}
optim: {{name: adam}}
train: {{epochs: 2}}
"""

STAGE = '''\
"""stage.py RUN STAGE BEHAVIOUR"""

import os, signal, sys, time
from pathlib import Path

from cardamage.errors import ConfigError, Stopped, run_program
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import running

run, stage, behaviour = RunPaths(Path(sys.argv[1])), sys.argv[2], sys.argv[3]


def stop(number, frame):
    raise Stopped("saved after step 7; start again to go on")


def main():
    with running(run, stage):
        signal.signal(signal.SIGUSR2, stop)
        print(f"{stage} at work, start {os.environ.get('SLURM_RESTART_COUNT', 0)}", flush=True)
        if behaviour == "refuses":
            raise ConfigError("the class is unknown; name another")
        if behaviour == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "is stubborn":
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if behaviour != "works" and not os.environ.get("SLURM_RESTART_COUNT"):
            time.sleep(60)
    print(f"{stage} at its end", flush=True)


run_program(main)
'''

SCRIPT = """\
#!/bin/bash
srun {python} -u {stage_py} {run} {stage} {behaviour}
status=$?
if [ $status = 75 ] && [ ! -e {run}/stages/cancel.json ]; then
  scontrol requeue $SLURM_JOB_ID
  sleep 60
fi
exit $status
"""


class Watched:
    """Runs of which every stage is a job, and the programs that watch them."""

    def __init__(self, slurm, program: Program) -> None:
        self.slurm, self.program, self.folder = slurm, program, program.folder
        (self.folder / "stage.py").write_text(STAGE)

    def submit(
        self,
        name: str = "one",
        options: tuple[str, ...] = (),
        given: dict[str, str] | None = None,
        **behaviours: str,
    ) -> RunPaths:
        """Submit the stages named, each after the one before, and those whose job is ``given``."""
        config = self.folder / f"{name}.yaml"
        config.write_text(CONFIG.format(name=name))
        run = RunPaths(self.folder / "runs" / name)
        open_run(run, load(config))
        jobs = dict(given or {})
        for stage, behaviour in behaviours.items():
            write_stage(run, StageRecord(stage))
            jobs[stage] = self._sbatch(run, stage, behaviour, list(jobs.values())[-1:], options)
            options = ()
        record = new_launch("slurm", "slurm", ["submit.py"], {stage: ["sbatch"] for stage in jobs})
        write_json(run.launch, asdict(replace(record, host="login", jobs=jobs, ended=now())))
        return run

    def _sbatch(
        self, run: RunPaths, stage: str, behaviour: str, needs: list[str], options: tuple[str, ...]
    ) -> str:
        quoted = {"run": f"'{run.root}'", "stage_py": f"'{self.folder}/stage.py'", "stage": stage}
        script = self.folder / "job.sh"
        script.write_text(
            SCRIPT.format(python=sys.executable, behaviour=f"'{behaviour}'", **quoted)
        )
        run.logs.mkdir(exist_ok=True)
        after = (f"--dependency=afterok:{needs[0]}", "--kill-on-invalid-dep=yes") if needs else ()
        log = ("--open-mode=append", f"--output={run.log(stage)}")
        return str(
            self.slurm.output(
                "sbatch", "--parsable", "--requeue", "--mem=100", *log, *after, *options, script
            )
        )

    def status(self, name: str = "one", **env: str) -> dict:
        """What ``status --json`` says of a run."""
        (of_run,) = json.loads(self.program.succeeds("launch/status.py", name, "--json", **env))
        return of_run

    def states(self, name: str = "one", **env: str) -> list[str]:
        """How the four stages of a run stand."""
        return [of_stage["state"] for of_stage in self.status(name, **env)["stages"].values()]

    def table(self, name: str = "one", **env: str) -> str:
        """The row of a run in the table, with the spaces between columns made one."""
        out = self.program.succeeds("launch/status.py", **env)
        (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        return re.sub(r"  +", " | ", line.strip())

    def await_log(self, run: RunPaths, stage: str, text: str) -> None:
        """Wait until a stage has printed ``text``."""
        log = run.log(stage)
        until(lambda: log.is_file() and text in log.read_text())

    def follow(self, run: RunPaths, *stage: str) -> subprocess.Popen[str]:
        """Start ``logs -f``."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "launch" / "logs.py"), "-f", str(run.root), *stage],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def watched(slurm, program: Program, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the jobs run this code too
    return Watched(slurm, program)


def until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def elsewhere(folder: Path) -> dict[str, str]:
    """An environment in which SLURM is down."""
    text = Path(os.environ["SLURM_CONF"]).read_text()
    conf = folder / "slurm.conf"
    conf.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=9", text))
    return {"SLURM_CONF": str(conf)}


@pytest.mark.parametrize("accounting", [True, False])
def test_status_of_a_graph_that_goes_on(watched, accounting: bool):
    if not accounting:
        watched.slurm.cluster.stop_slurmdbd()
    run = watched.submit(pack="works", train="waits", test="works", report="works")
    watched.await_log(run, "train", "at work")
    jobs = read_launch(run).jobs
    of_run = watched.status()
    stages = of_run["stages"]
    assert [stages[stage]["state"] for stage in STAGES] == ["done", "running", "queued", "queued"]
    assert [stages[stage]["job_id"] for stage in STAGES] == list(jobs.values())
    assert stages["train"]["job"]["nodes"] in ("n0", "n1")
    assert stages["test"]["job"]["reason"] == "Dependency"
    assert (of_run["launcher"], of_run["queue_problem"]) == ("slurm", None)
    row = watched.table()
    assert row.startswith(f"one | done | running | queued | queued | 0/2 | {jobs['train']} | n")


def test_status_says_why_a_job_waits(watched):
    run = watched.submit(pack="works", train="works", options=("--hold",))
    row = watched.table()
    assert row.startswith("one | queued (JobHeldUser) | queued | waiting | waiting | 0/2 | ")
    assert row.endswith(read_launch(run).jobs["pack"])


def test_status_of_a_graph_that_failed(watched):
    run = watched.submit(pack="works", train="refuses", test="works", report="works")
    until(lambda: watched.states()[1] == "failed")
    until(lambda: watched.slurm.jobs().isdisjoint(read_launch(run).jobs.values()))
    out = watched.program.succeeds("launch/status.py")
    assert f"{run.root.relative_to(watched.folder)}: train failed: the class is unknown" in out
    assert watched.states() == ["done", "failed", "cancelled", "cancelled"]
    assert watched.status()["launcher"] is None


def test_status_of_a_stage_that_left_no_word(watched):
    run = watched.submit(train="dies")
    job = read_launch(run).jobs["train"]
    watched.slurm.wait_for(job, "FAILED")
    of_stage = watched.status()["stages"]["train"]
    assert of_stage["state"] == "failed"
    assert of_stage["error"] == f"its job {job} ended as FAILED, and the stage left no word"


def test_status_of_a_job_that_nobody_knows(watched):
    run = watched.submit(train="works")
    watched.slurm.wait_for(read_launch(run).jobs["train"], "COMPLETED")
    launch = replace(read_launch(run), jobs={"train": "999999"})
    write_json(run.launch, asdict(launch))
    assert watched.states()[1] == "done"
    write_stage(run, replace(read_stage(run, "train"), state="running"))
    assert watched.states()[1] == "lost"
    assert "job 999999 is gone" in watched.program.succeeds("launch/status.py")


def test_status_of_a_job_that_is_queued_again(watched):
    run = watched.submit(train="waits")
    watched.await_log(run, "train", "at work")
    job = read_launch(run).jobs["train"]
    watched.slurm.output("scancel", "--signal=USR2", job)
    watched.slurm.wait_for(job, "PENDING")
    assert "| queued again (BeginTime) |" in watched.table()
    assert read_stage(run, "train").state == "stopped"
    until(lambda: watched.states()[1] == "done")


def test_job_that_was_submitted_anew_takes_the_place_of_the_old(watched):
    run = watched.submit(train="works", options=("--hold",))
    old, new = read_launch(run).jobs["train"], watched.slurm.sbatch("sleep 60", "--mem=100")
    watched.slurm.output("scancel", old)
    run.slurm.mkdir()
    run.resubmitted.write_text(f"{old} {new}\n")
    until(lambda: watched.states()[1] == "running")
    assert watched.status()["stages"]["train"]["job_id"] == new


def test_status_without_slurm_shows_the_markers_and_says_so_once(watched, tmp_path: Path):
    first = watched.submit(pack="works", train="waits", test="works")
    watched.submit("two", pack="works", options=("--hold",))
    watched.await_log(first, "train", "at work")
    down = elsewhere(tmp_path)
    assert watched.states(**down) == ["done", "running", "waiting", "waiting"]
    out = watched.program.succeeds("launch/status.py", **down)
    assert out.count("SLURM does not answer") == 1
    bare = {"PATH": str(tmp_path)}
    assert watched.states("two", **bare) == ["waiting"] * 4
    assert watched.status("two", **bare)["queue_problem"] == (
        "this machine has no squeue; ask on a machine of cluster slurm, such as login"
    )


def test_accounting_knows_what_the_queue_forgot(watched):
    run = watched.submit(train="dies")
    job = read_launch(run).jobs["train"]
    watched.slurm.wait_for_accounting(job, "State", "FAILED")
    assert ask_accounting(Queue(), [job]).find(job).state == "FAILED"
    assert ask_accounting(Queue(), ["999999"]).find("999999") is None


def test_queue_tells_elements_of_arrays_apart(watched):
    array = watched.slurm.sbatch("sleep 60", "--array=0-2%1", "--mem=100")
    until(lambda: ask_queue([array]).find(f"{array}_0").is_running)
    queue = ask_queue([f"{array}_0", f"{array}_2", "999999"])
    assert queue.find(f"{array}_2").reason == "JobArrayTaskLimit"
    assert queue.find(array).is_running
    assert queue.find("999999") is None
    assert ask_queue(["999999"]).problem is None


def test_logs_follows_a_stage_across_a_requeue(watched):
    run = watched.submit(train="waits")
    following = watched.follow(run)
    watched.await_log(run, "train", "start 0")
    watched.slurm.output("scancel", "--signal=USR2", read_launch(run).jobs["train"])
    out, _ = following.communicate(timeout=120)
    assert following.returncode == 0
    assert out == run.log("train").read_text()
    assert "start 0" in out
    assert out.endswith("train at its end\n")


def test_logs_says_what_it_waits_for(watched):
    run = watched.submit(pack="works", options=("--hold",))
    job = read_launch(run).jobs["pack"]
    with watched.follow(run) as following:
        assert following.stderr.readline() == f"pack is queued as job {job} (JobHeldUser)\n"
        watched.slurm.output("scancel", job)
        assert following.wait(timeout=120) == 2
        assert "stage pack has no log" in following.stderr.read()


def test_cancel_of_a_queued_run(watched):
    run = watched.submit(pack="works", train="works", test="works", options=("--hold",))
    out = watched.program.succeeds("launch/cancel.py", "one")
    assert out == "runs/one: pack cancelled, train cancelled, test cancelled\n"
    assert watched.slurm.jobs().isdisjoint(read_launch(run).jobs.values())
    assert not run.cancel_request.exists()
    assert watched.states() == ["cancelled", "cancelled", "cancelled", "waiting"]
    assert watched.program.succeeds("launch/cancel.py", "one").endswith(
        "nothing of it runs or waits\n"
    )


def test_cancel_of_one_run_of_a_waiting_array_leaves_the_others(watched):
    array = watched.slurm.sbatch("sleep 60", "--array=0-2", "--hold")
    for index, name in enumerate(("one", "two", "three")):
        watched.submit(name, given={"train": f"{array}_{index}"})
    out = watched.program.succeeds("launch/cancel.py", "two")
    assert out == "runs/two: train cancelled\n"
    left = watched.slurm.output("squeue", "-h", "-r", "-t", "PENDING", "-j", array, "-o", "%i")
    assert set(left.split()) == {f"{array}_0", f"{array}_2"}


def test_cancel_of_a_running_run_lets_it_save_and_queues_it_no_more(watched):
    run = watched.submit(pack="works", train="waits", test="works")
    watched.await_log(run, "train", "at work")
    out = watched.program.succeeds("launch/cancel.py", run.root)
    assert out == f"{run.root}: pack done, train stopped, test cancelled\n"
    assert read_stage(run, "train").error == "saved after step 7; start again to go on"
    assert watched.slurm.jobs().isdisjoint(read_launch(run).jobs.values())
    assert watched.slurm.show(read_launch(run).jobs["train"])["Restarts"] == "0"
    assert not run.cancel_request.exists()
    assert watched.states() == ["done", "stopped", "cancelled", "waiting"]


def test_cancel_of_what_does_not_save_says_so_and_kill_ends_it(watched):
    run = watched.submit(train="is stubborn", test="works")
    watched.await_log(run, "train", "at work")
    result = watched.program("launch/cancel.py", run.root, "--timeout", 2)
    assert result.returncode == 1
    assert "has not after 2 s; wait, or end it at once with --kill" in result.stderr
    out = watched.program.succeeds("launch/cancel.py", run.root, "--kill")
    assert out == f"{run.root}: train stopped, test cancelled\n"
    assert watched.slurm.jobs().isdisjoint(read_launch(run).jobs.values())


def test_cancel_leaves_alone_what_another_run_needs(watched):
    first = watched.submit(pack="waits", train="works")
    shared = {"pack": read_launch(first).jobs["pack"]}
    second = watched.submit("two", given=shared, train="works")
    watched.await_log(first, "pack", "at work")
    out = watched.program.succeeds("launch/cancel.py", "two")
    assert out.endswith("train cancelled\n")
    assert watched.slurm.jobs() >= set(read_launch(first).jobs.values())
    assert read_launch(second).jobs["train"] not in watched.slurm.jobs()
    out = watched.program.succeeds("launch/cancel.py", "one", "two")
    assert out.startswith("runs/one: pack stopped, train cancelled\n")


def test_cancel_without_slurm_changes_nothing(watched, tmp_path: Path):
    run = watched.submit(pack="works", options=("--hold",))
    error = watched.program.refuses("launch/cancel.py", "one", **elsewhere(tmp_path))
    assert "SLURM does not answer" in error
    assert "nothing was cancelled: try again on a machine of cluster slurm, such as login" in error
    assert not run.cancel_request.exists()
    assert watched.states()[0] == "queued"


def test_hundreds_of_runs_are_one_question(watched):
    run = watched.submit(pack="works", options=("--hold",))
    launch = asdict(read_launch(run))
    for number in range(200):
        other = RunPaths(run.root.parent / f"run-{number}")
        open_run(other, load(run.config).model_copy(update={"name": f"run-{number}"}))
        write_json(other.launch, launch)
    counting = watched.folder / "squeue"
    counting.write_text(f'#!/bin/sh\necho >> asked\nexec {shutil.which("squeue")} "$@"\n')
    counting.chmod(0o755)
    path = f"{watched.folder}:{os.environ['PATH']}"
    found = json.loads(watched.program.succeeds("launch/status.py", "--json", PATH=path))
    assert len(found) == 201
    assert all(of_run["stages"]["pack"]["state"] == "queued" for of_run in found)
    assert (watched.folder / "asked").read_text() == "\n"


def test_interrupting_logs_ends_it_quietly(watched):
    run = watched.submit(pack="works", options=("--hold",))
    with watched.follow(run) as following:
        following.stderr.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=120) == 0


def test_run_that_slurm_works_for_cannot_be_submitted_again(watched):
    run = watched.submit(pack="works", options=("--hold",))
    job = read_launch(run).jobs["pack"]
    error = watched.program.refuses("launch/submit.py", run.root, "--cluster", "local")
    assert f"is being run already: stage pack is queued as job {job}" in error
    watched.slurm.output("scancel", job)
    write_stage(run, StageRecord("pack", state="running", host="n7"))  # it left no word
    check_free(run)


def test_without_slurm_a_run_that_was_queued_is_not_submitted_again(watched, tmp_path: Path):
    run = watched.submit(pack="works", options=("--hold",))
    error = watched.program.refuses(
        "launch/submit.py", run.root, "--cluster", "local", **elsewhere(tmp_path)
    )
    assert "nobody can tell whether job" in error
    assert f"delete {run.launch}" in error
