"""submit on a real SLURM: the graph runs, fails and is refused as it should."""

import json
import re
import subprocess
import sys
import time

import pytest
from programs import ROOT, Program
from safetensors.numpy import load_file

from cardamage.paths import STAGES, RunPaths
from cardamage.stages import read_stage
from cardamage.tables import read_table

pytestmark = pytest.mark.slurm

TOY = """\
name: toy
data:
  source: synthetic
  synthetic: {images: 24, size: 48}
  classes: [scratch, dent, broken lamp]
  image_size: [32, 32]
model: {name: segnet2}
optim: {name: adam, lr: 0.003}
train: {epochs: 2, batch_size: 4}
"""
PROFILE = """\
backend: slurm
all_stages: {cpus_per_task: 1, time_minutes: 5}
train: {nodes: 2}
"""
LOCAL = "backend: local\ntrain: {processes: 2}\n"


@pytest.fixture
def submit(slurm, program: Program) -> Program:
    """Programs in a folder with an experiment and profiles of the test cluster."""
    for name, text in (("toy", TOY), ("two", PROFILE), ("here", LOCAL)):
        (program.folder / f"{name}.yaml").write_text(text)
    return program


def run_of(program: Program, name: str = "toy") -> RunPaths:
    return RunPaths(program.folder / "runs" / name)


def jobs_of(run: RunPaths) -> dict[str, str]:
    found: dict[str, str] = json.loads(run.launch.read_text())["jobs"]
    return found


def wait_until_over(slurm, run: RunPaths, timeout_s: float = 180) -> None:
    """Wait until no job of a run is queued or runs."""
    deadline = time.monotonic() + timeout_s
    jobs = {job.partition("_")[0] for job in jobs_of(run).values()}
    # By the ids of arrays: an element that runs has one of its own.
    while left := jobs & {*slurm.output("squeue", "-h", "-o", "%F").split()}:
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text() for path in run.logs.iterdir())
            pytest.fail(f"jobs {left} are not over\n{slurm.output('squeue')}\n{logs}")
        time.sleep(0.5)


def scores(run: RunPaths) -> list[dict[str, object]]:
    """The table of the tests without the files' hashes: safetensors orders its header by chance."""
    return [{**row, "weights_sha256": None} for row in read_table(run.test_table("test"))]


def states(run: RunPaths) -> list[str]:
    return [read_stage(run, stage).state for stage in STAGES]


def test_two_nodes_get_the_metrics_of_two_processes_here(submit: Program, slurm):
    began = time.monotonic()
    said = submit.succeeds("launch/submit.py", "toy.yaml", "--cluster", "two.yaml")
    assert time.monotonic() - began < 10  # it does not wait for the jobs
    run = run_of(submit)
    jobs = jobs_of(run)
    assert list(jobs) == list(STAGES)
    assert said == f"toy: {', '.join(f'{stage} {job}' for stage, job in jobs.items())}\n"
    wait_until_over(slurm, run)
    assert states(run) == ["done"] * 4, run.log("train").read_text()
    assert (run.report / "index.html").is_file()
    assert read_stage(run, "train").job_id == jobs["train"]
    assert "process 1 on n1" in run.log("train").read_text()

    submit.succeeds("launch/submit.py", "toy.yaml", "--cluster", "here.yaml", "--runs-dir", "here")
    here = RunPaths(submit.folder / "here" / "toy")
    assert run.metrics.read_bytes() == here.metrics.read_bytes()
    there_weights, weights = (load_file(each.checkpoint(2)) for each in (run, here))
    assert list(there_weights) == list(weights)
    assert all((there_weights[name] == weights[name]).all() for name in weights)
    assert scores(run) == scores(here)

    again = submit.succeeds("launch/submit.py", "toy.yaml", "--cluster", "two.yaml")
    assert again == "toy: nothing to do: pack, train, test, report of runs/toy is done\n"


def test_a_stage_that_fails_ends_the_graph(submit: Program, slurm):
    followed = submit(
        "launch/submit.py", "toy.yaml", "optim.lr=1e30", "--cluster", "two.yaml", "--follow"
    )
    assert followed.returncode == 1, followed.stderr
    run = run_of(submit)
    assert not {*jobs_of(run).values()} & slurm.jobs()
    assert states(run) == ["done", "failed", "cancelled", "cancelled"]
    assert len(json.loads(run.starts("train").read_text())) == 1  # it would fail again
    said = submit.succeeds("launch/status.py", "toy")
    assert re.search(r"train failed: the training loss became nan .*; log: .*/train\.log", said)


def test_the_code_that_runs_is_the_code_that_was_submitted(submit: Program, slurm):
    tree = submit.folder / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "cardamage", "jobs", "launch", "configs", "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    (submit.folder / "later.yaml").write_text(
        PROFILE.replace("time_minutes: 5", "time_minutes: 5, extra: {begin: now+3}")
    )
    command = [sys.executable, tree / "launch" / "submit.py", "toy.yaml", "--stages", "pack"]
    result = subprocess.run(
        [*command, "--cluster", "later.yaml"],
        cwd=submit.folder,
        env={**submit.environment, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for path in (tree / "jobs" / "pack.py", tree / "cardamage" / "stages.py"):
        path.write_text("raise SystemExit('this was edited after the submission')\n")
    run = run_of(submit)
    wait_until_over(slurm, run)
    assert read_stage(run, "pack").state == "done", run.log("pack").read_text()


@pytest.mark.parametrize(
    ("stage", "complaint"),
    [
        ("train: {partition: mian}", r'train.partition: "mian" is unknown \(did you mean "main"'),
        ("train: {time_minutes: 6000}", r"6000 is more than partition main allows, which is 60"),
        ("train: {nodes: 3}", r"stage train \(nodes 3, .*: SLURM refuses it: Requested node conf"),
        ("test: {gpus_per_node: 9}", r"stage test \(.*GPUs per node 9.*SLURM refuses it"),
        ("report: {mem_gb: 9000}", r"stage report \(.*9000 GiB a node.*SLURM refuses it"),
        ("train: {qos: nobel}", r"SLURM refuses it: Invalid qos"),
        ("pack: {extra: {reservatoin: x}}", r"unrecognized option '--reservatoin=x'"),
        ("train: {node: 3}", r'train.node: unknown key \(did you mean "nodes"\?\); allowed here:'),
    ],
)
def test_what_slurm_cannot_give_is_refused_at_once(
    submit: Program, slurm, stage: str, complaint: str
):
    before = slurm.jobs()
    (submit.folder / "bad.yaml").write_text(f"backend: slurm\n{stage}\n")
    line = submit.refuses("launch/submit.py", "toy.yaml", "--cluster", "bad.yaml")
    assert re.search(complaint, line), line
    assert slurm.jobs() == before
    assert not (submit.folder / "runs").exists()


def test_a_run_that_slurm_works_for_is_not_taken_twice(submit: Program, slurm):
    (submit.folder / "later.yaml").write_text(
        "backend: slurm\nall_stages: {cpus_per_task: 1, time_minutes: 5, extra: {begin: now+60}}\n"
    )
    submit.succeeds("launch/submit.py", "toy.yaml", "--cluster", "later.yaml")
    before = slurm.jobs()
    line = submit.refuses("launch/submit.py", "toy.yaml", "--cluster", "later.yaml")
    assert jobs_of(run_of(submit))["pack"] in line
    assert slurm.jobs() == before
    line = submit.refuses("launch/submit.py", "toy.yaml", "--cluster", "local")
    assert jobs_of(run_of(submit))["pack"] in line


def test_nothing_of_an_allocation_reaches_the_jobs(submit: Program, slurm):
    command = [sys.executable, str(ROOT / "launch" / "submit.py"), "toy.yaml"]
    options = ["--cluster", "two.yaml", "--stages", "pack,train", "train.epochs=1"]
    allocation = ["salloc", "-N1", "-n1", "-c1", "--mem-per-cpu=100", "srun", "--mem-per-cpu=100"]
    result = subprocess.run(
        [*allocation, *command, *options],
        cwd=submit.folder,
        env=submit.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    run = run_of(submit)
    wait_until_over(slurm, run)
    assert states(run)[:2] == ["done", "done"], run.log("train").read_text()


def test_a_process_that_is_killed_starts_again_and_the_limit_of_starts_holds(
    submit: Program, slurm
):
    (submit.folder / "kills.yaml").write_text(
        "backend: slurm\nstarts_without_progress: 2\n"
        "all_stages: {cpus_per_task: 1, time_minutes: 5}\n"
        # The stage's process dies before it can say a word.
        "pack: {setup: ['export PYTHONSTARTUP=x', 'srun() { bash -c \"kill -9 \\$\\$\"; }']}\n"
    )
    submit.succeeds("launch/submit.py", "toy.yaml", "--cluster", "kills.yaml")
    run = run_of(submit)
    wait_until_over(slurm, run)
    assert states(run) == ["failed", "cancelled", "cancelled", "cancelled"]
    assert len(json.loads(run.starts("pack").read_text())) == 2
    error = read_stage(run, "pack").error
    assert error is not None
    assert error.startswith("2 starts in a row brought no progress")


def test_testing_in_parts(submit: Program, slurm):
    (submit.folder / "parts.yaml").write_text(
        "backend: slurm\nall_stages: {cpus_per_task: 1, time_minutes: 5}\ntest: {jobs: 2}\n"
    )
    submit.succeeds("launch/submit.py", "toy.yaml", "--cluster", "parts.yaml")
    run = run_of(submit)
    wait_until_over(slurm, run)
    assert states(run) == ["done"] * 4, run.log("test").read_text()
    assert [read_stage(run, f"test.{i}").output["checkpoints"] for i in range(2)] == [1, 1]
    assert len(run.test_table("test").read_text().splitlines()) == 3


def test_of_a_sweep_only_what_failed_is_run_again(submit: Program, slurm):
    (submit.folder / "one.yaml").write_text(PROFILE.replace("nodes: 2", "nodes: 1"))
    sweep = """\
name: rates
sweep:
  config: toy.yaml
  overrides: {train.epochs: 1}
  grid: {optim.lr: [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 1.0e+30]}
"""
    (submit.folder / "sweep.yaml").write_text(sweep)
    said = submit.succeeds("launch/submit.py", "sweep.yaml", "--cluster", "one.yaml")
    lines = said.splitlines()
    assert lines[0] == "rates: 7 runs"
    runs = [run_of(submit, line.partition(":")[0]) for line in lines[1:-1]]
    assert len({jobs_of(run)["pack"] for run in runs}) == 1
    # MaxArraySize is 6 there: two arrays.
    assert len({jobs_of(run)["train"].partition("_")[0] for run in runs}) == 2
    study = run_of(submit, "rates")
    for run in (*runs, study):
        wait_until_over(slurm, run, timeout_s=400)
    for run in runs[:-1]:
        assert states(run) == ["done"] * 4, submit("launch/status.py").stdout
    assert states(runs[-1]) == ["done", "failed", "cancelled", "cancelled"]
    assert "1 of 7 runs of rates are not tested" in str(read_stage(study, "report").error)
    again = submit.succeeds("launch/submit.py", "sweep.yaml", "--cluster", "one.yaml", "--dry-run")
    assert "6 of 7 runs are complete" in again
    names = re.findall(r"--job-name=(.*)", again)
    assert names == [f"rates-lr_1e30-{stage}" for stage in STAGES[1:]] + ["rates-report"]
    assert "--array" not in re.findall(r"#SBATCH (--array)", again)


def test_slurm_is_the_default_where_it_is(submit: Program, slurm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CARDAMAGE_CLUSTER")
    said = submit.succeeds("launch/submit.py", "toy.yaml", "--dry-run")
    assert "#SBATCH --job-name=toy-train" in said


def test_a_slurm_that_is_down_is_told_of_at_once(submit: Program, slurm, tmp_path):
    conf = tmp_path / "slurm.conf"
    there = slurm.cluster.folder / "slurm.conf"
    conf.write_text(re.sub(r"(?m)^SlurmctldPort=.*$", "SlurmctldPort=1", there.read_text()))
    began = time.monotonic()
    command = ("launch/submit.py", "toy.yaml", "--cluster", "two.yaml")
    line = submit.refuses(*command, SLURM_CONF=str(conf))
    assert "SLURM does not answer" in line
    assert time.monotonic() - began < 15
    assert not (submit.folder / "runs").exists()
    # A dry run asks for nothing that it cannot do without.
    assert "#SBATCH" in submit.succeeds(*command, "--dry-run", SLURM_CONF=str(conf))
