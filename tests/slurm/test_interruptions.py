"""Training on nodes of a real SLURM, mostly two, interrupted in every way SLURM knows.

It ends as if it had not been: every epoch once, and the same ``metrics.csv`` to the last byte.

At its fifth step each run waits at a gate, through a hook that only these tests put in place, until
it has been interrupted. All but the last test share runs that are at work at the same time.
"""

import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cardamage.launch.watching.record import read_launch
from cardamage.runs.attempts import read_attempts
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from tests.helpers.programs import Program
from tests.helpers.slurm_commands import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

EPOCHS = 3

PROFILE = """\
backend: slurm
all_stages: {{cpus_per_task: 1, time_minutes: 10}}
train: {{nodes: {nodes}, partition: {partition}, extra: {{{extra}}}}}
save_seconds: 20
starts_without_progress: {starts}
watchdog_minutes: {watchdog}
environment: {{{environment}}}
"""

HOOK = '''\
"""Training waits at its fifth step while a file named ``shut`` is there; or hangs, by request.

It also agrees while it validates."""

import importlib.util
import os
import sys
import time
from pathlib import Path

WATCHED = "cardamage.training.stopping"


class Hook:
    def find_spec(self, name, path=None, target=None):
        if name != WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), add_gate(module.StopRequests))
        return spec


def add_gate(requests):
    agreed, gate, rank = requests.agreed, Path(os.environ["GATE"]), os.environ["SLURM_PROCID"]
    steps = []

    def wait_then_agree(self, *, save_due=False):
        steps.append(None)
        if len(steps) == 6 and (gate / "shut").exists():
            (gate / f"waits-{rank}").touch()
            if (gate / "hang").exists() and rank == "1":
                while not (gate / "waits-0").exists():
                    time.sleep(0.05)
                (gate / "shut").unlink()  # once is enough
                wait_for_nobody()
            while (gate / "shut").exists() and self._asked is None:
                time.sleep(0.05)
        return agreed(self, save_due=save_due)

    requests.agreed = wait_then_agree


def wait_for_nobody():
    time.sleep(600)


if "cardamage" in sys.orig_argv and "train" in sys.orig_argv:
    sys.meta_path.insert(0, Hook())
'''


class Training:
    """A run that is trained by a job, and stops at a gate on its way."""

    def __init__(self, slurm: Slurm, program: Program, name: str) -> None:
        self.slurm, self.program = slurm, program
        self.run = RunPaths(program.folder / "runs" / name)
        self.gate = program.folder / f"gate of {name}"
        self.job, self.nodes = "", 2

    def submit(
        self,
        *,
        partition: str = "main",
        extra: str = "",
        watchdog_s: float = 0,
        hangs: bool = False,
        starts: int = 3,
        nodes: int = 2,
    ) -> None:
        """Submit it, its gate shut; with ``hangs`` process 1 hangs there."""
        self.nodes = nodes
        self.gate.mkdir()
        if hangs:
            (self.gate / "hang").touch()
        (self.gate / "shut").touch()
        environment = {"GATE": str(self.gate), "PYTHONPATH": str(self.program.folder / "hook")}
        pairs = ", ".join(f"{name}: '{value}'" for name, value in environment.items())
        profile = self.program.folder / f"{self.run.root.name}.yaml"
        watchdog = watchdog_s / 60
        profile.write_text(
            PROFILE.format(
                partition=partition,
                extra=extra,
                watchdog=watchdog,
                environment=pairs,
                starts=starts,
                nodes=nodes,
            )
        )
        told = f'notify.command=echo "$CARDAMAGE_STATE" >> "{self.gate}/told"'
        config = ("toy.yaml", f"train.epochs={EPOCHS}", f"name={self.run.root.name}", told)
        self.program.succeeds("jobs/pack.py", *config)
        stages = ("--stages", "train", "--cluster", profile)
        submitted = self.program.inside("launch/submit.py", *config, *stages)
        assert submitted.returncode == 0, submitted.stderr
        record = read_launch(self.run)
        assert record is not None
        self.job = record.jobs["train"]

    @property
    def log(self) -> str:
        """What the job printed so far."""
        path = self.run.log("train")
        return path.read_text() if path.exists() else ""

    def wait_until(self, ready: Callable[[], bool], what: str, timeout_s: float = 300) -> None:
        """Wait for something to become so."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not yet, but:\n{self.log}\n{self.slurm.show(self.job)}")
            time.sleep(0.2)

    def wait_at_gate(self) -> None:
        """Wait until all processes are at the gate, within the second epoch."""
        waits = [self.gate / f"waits-{rank}" for rank in range(self.nodes)]
        self.wait_until(lambda: all(path.exists() for path in waits), "at the gate")

    def wait_for_start(self, number: int) -> None:
        """Wait until the job has started again, then open the gate for it."""
        self.wait_until(lambda: f"start {number}: job" in self.log, f"start {number}")
        (self.gate / "shut").unlink(missing_ok=True)

    def limit_to(self, minutes: int) -> None:
        """Change SLURM's time limit."""
        self.slurm.output("scontrol", "update", f"JobId={self.job}", f"TimeLimit={minutes}")

    def meet_time_limit(self) -> None:
        """Have SLURM's limit come within a minute: while Python is imported, it would be soon."""
        elapsed = self.slurm.show(self.job)["RunTime"]  # hours:minutes:seconds
        self.limit_to(int(elapsed.split(":")[1]) + 1)

    def wait_for_step(self) -> None:
        """Wait until SLURM has started the processes: before, a signal to them is lost."""
        wanted = ("--steps", "--noheader", "--format=%i", "--jobs", self.job)
        step = f"{self.job}.0"
        self.wait_until(lambda: step in self.slurm.output("squeue", *wanted).split(), step)

    def signal(self, name: str) -> None:
        """Send a signal to every process of the step, as SLURM announces a job's end."""
        self.slurm.output("scancel", f"--signal={name}", self.job)

    def process(self, rank: int) -> psutil.Process:
        """The training process of a rank."""
        wanted = {"SLURM_JOB_ID": self.job, "SLURM_PROCID": str(rank)}
        for process in psutil.process_iter():
            try:
                environment, words = process.environ(), process.cmdline()
            except (psutil.Error, OSError):
                continue
            is_of_step = wanted.items() <= environment.items()
            if is_of_step and str(self.run.root) in words and words[0] != "srun":
                return process
        pytest.fail(f"process {rank} of job {self.job} does not run:\n{self.log}")

    def ends_as(self, undisturbed: RunPaths) -> None:
        """Wait for the end, and compare what is there with a run that nobody disturbed."""
        fields = self.slurm.wait_for(self.job, "COMPLETED", "FAILED", "CANCELLED", timeout_s=300)
        assert fields["JobState"] == "COMPLETED", self.log
        assert int(fields["Restarts"]) >= 1
        assert read_stage(self.run, "train").state == "done"
        with self.run.metrics.open() as stream:
            assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2", "3"]
        assert list(self.run.finished_checkpoints()) == [1, 2, 3]
        assert self.run.metrics.read_bytes() == undisturbed.metrics.read_bytes()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, toy_shards: Path) -> Program:
    """Programs in a folder with ``toy.yaml`` and the hook."""
    folder = tmp_path_factory.mktemp("interrupted runs")
    text = (toy_shards.parent / "toy.yaml").read_text()
    where = f"  shards_dir: {toy_shards}\n  classes"
    (folder / "toy.yaml").write_text(text.replace("  classes", where))
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    return Program(folder)


@pytest.fixture(scope="module")
def undisturbed(program: Program) -> RunPaths:
    """The run of two processes that is trained in one go."""
    config = ("toy.yaml", f"train.epochs={EPOCHS}")
    program.succeeds("jobs/pack.py", *config)
    program.distributed(2, "jobs/train.py", *config)
    return RunPaths(program.folder / "runs" / "toy")


@pytest.fixture(scope="module")
def undisturbed_alone(program: Program) -> RunPaths:
    """Likewise of one process, whose sums are others."""
    config = ("toy.yaml", f"train.epochs={EPOCHS}", "name=alone")
    program.succeeds("jobs/pack.py", *config)
    program.succeeds("jobs/train.py", *config)
    return RunPaths(program.folder / "runs" / "alone")


@pytest.fixture(scope="module")
def trainings(cluster, program: Program) -> Iterator[dict[str, Training]]:
    """Runs at work together, each of which has just been interrupted in its way, or will be."""
    slurm = Slurm(cluster, program.folder)
    options: dict[str, dict[str, Any]] = {
        "silent hang": {"hangs": True},  # first those whose interruption takes longest to come
        "time limit": {},
        "hang": {"watchdog_s": 15, "hangs": True},
        "preempted": {"partition": "low", "extra": "gres: 'gpu:1'"},
        "signal": {},
        "early": {"starts": 1, "nodes": 1},  # one failure of its own would end it
        "asked": {"starts": 1, "nodes": 1},
        "requeue": {},
        "kill": {},
    }
    made = {name: Training(slurm, program, name.replace(" ", "-")) for name in options}
    for name, training in made.items():
        training.submit(**options[name])
        if name == "signal":
            training.wait_for_step()
            training.signal("USR2")  # while it imports, or before
    early = made["early"]
    early.wait_until(lambda: "start 1:" in early.log, "start 1")
    slurm.output("scontrol", "requeue", early.job)  # before the first step
    for name, interrupt in (
        ("silent hang", made["silent hang"].meet_time_limit),
        ("time limit", made["time limit"].meet_time_limit),
        ("preempted", lambda: slurm.sbatch("sleep 1", "-phigh", "--nodes=2", "--gres=gpu:2")),
        ("asked", lambda: slurm.output("scancel", "--signal=USR2", "--batch", made["asked"].job)),
        ("requeue", lambda: slurm.output("scontrol", "requeue", made["requeue"].job)),
        ("kill", lambda: made["kill"].process(1).kill()),
        ("signal", lambda: made["signal"].signal("USR2")),
    ):
        made[name].wait_at_gate()
        interrupt()
    for name in ("time limit", "silent hang"):
        limited = made[name]
        limited.wait_until(lambda t=limited: slurm.show(t.job)["Restarts"] != "0", "at its limit")
        limited.limit_to(10)
    yield made
    for training in made.values():
        slurm.run("scancel", training.job)


def test_a_signal_saves_and_the_job_goes_on(trainings, undisturbed):
    training = trainings["signal"]
    training.wait_for_start(3)
    training.ends_as(undisturbed)
    assert "SIGUSR2: stopping after this step" in training.log
    last = read_attempts(training.run)[-1]  # the first signal may also come at a step
    assert f"stopped: saved at step {last.begun_at}, in epoch " in training.log


def test_requeued_from_outside(trainings, undisturbed):
    training = trainings["requeue"]
    training.wait_for_start(2)
    training.ends_as(undisturbed)


def test_a_killed_process_ends_the_job_at_once_and_it_goes_on(trainings, undisturbed):
    training = trainings["kill"]
    training.wait_for_start(2)
    training.ends_as(undisturbed)
    assert "task 1: Killed" in training.log


def test_a_process_that_hangs_is_found_and_its_stack_is_in_the_log(trainings, undisturbed):
    training = trainings["hang"]
    training.wait_for_start(2)
    training.ends_as(undisturbed)
    for rank in (0, 1):  # those that wait for it, too
        assert f"error: process {rank} on n{rank} got nowhere for 15 s" in training.log
    (line,) = [line for line in training.log.splitlines() if "in wait_for_nobody" in line]
    assert line.startswith("[process 1 on n1] ")
    threads = [line for line in training.log.splitlines() if "Thread 0x" in line]
    assert all(line.startswith("[process ") for line in threads)  # no line is torn
    assert (training.gate / "told").read_text().splitlines()[0] == "stuck"


def test_the_time_limit(trainings, undisturbed):
    training = trainings["time limit"]
    training.wait_for_start(2)
    training.ends_as(undisturbed)
    assert "saved at step 4, in epoch 2" in training.log


def test_a_hang_that_outlives_the_time_limit(trainings, undisturbed):
    training = trainings["silent hang"]
    training.wait_for_start(2)
    training.ends_as(undisturbed)
    assert "got nowhere" not in training.log  # nobody watched
    assert "DUE TO TIME LIMIT" in training.log


def test_preempted_by_a_job_of_higher_priority(trainings, undisturbed):
    training = trainings["preempted"]
    training.wait_for_start(2)
    training.ends_as(undisturbed)
    assert "saved at step 4, in epoch 2" in training.log


def test_a_start_that_slurm_ends_is_no_failure_and_the_batch_shell_heeds_usr2(
    trainings, program, undisturbed_alone
):
    early, asked = trainings["early"], trainings["asked"]
    asked.wait_for_start(2)
    asked.ends_as(undisturbed_alone)
    assert "saved at step 4, in epoch 2" in asked.log
    early.wait_for_start(2)
    early.ends_as(undisturbed_alone)
    found = read_attempts(asked.run)
    assert [(a.begun_at, a.state) for a in found] == [(0, "stopped"), (4, "done")]
    assert {a.job for a in found} == {asked.job}
    before = {path: path.read_bytes() for path in asked.run.root.rglob("*") if path.is_file()}
    said = program.succeeds(
        "launch/submit.py", asked.run.root, "--stages", "train", "--cluster", "asked.yaml"
    )
    assert "nothing to do" in said
    after = {path: path.read_bytes() for path in asked.run.root.rglob("*") if path.is_file()}
    assert after == before


def test_nodes_fail_with_their_processes(slurm, program, undisturbed):
    training = Training(slurm, program, "without-nodes")
    training.submit()
    for start, node in enumerate(("n1", "n0"), start=1):  # n0 has the batch script and process 0
        training.wait_at_gate()
        assert {p.name() for p in slurm.cluster.processes(node)} == {"slurmd", "slurmstepd"}
        slurm.cluster.kill_node(node)
        assert not slurm.cluster.processes(node)
        training.wait_until(lambda: slurm.state(training.job) != "RUNNING", "noticed")
        for path in training.gate.glob("waits-*"):
            path.unlink()
        slurm.cluster.start_node(node)
        training.wait_until(lambda n=start + 1: f"start {n}: job" in training.log, "again")
    training.wait_for_start(3)
    training.ends_as(undisturbed)
