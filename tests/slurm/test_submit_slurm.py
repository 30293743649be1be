"""submit on a real SLURM: what it queues, and what it refuses, then queueing nothing."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cardamage.runs.paths import STAGES
from cardamage.runs.stages import read_stage
from tests.helpers import failing_disk
from tests.helpers.programs import ROOT, Program
from tests.helpers.submissions import ONE_NODE, TOY, TWO_NODES, jobs_of, run_of, wait_until_over

pytestmark = pytest.mark.slurm


@pytest.fixture
def submit(slurm, program: Program) -> Program:
    """Programs in a folder with an experiment and profiles of the test cluster."""
    for name, text in (("toy", TOY), ("two", TWO_NODES)):
        (program.folder / f"{name}.yaml").write_text(text)
    return program


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
        ONE_NODE.replace("time_minutes: 5", "time_minutes: 5, extra: {begin: now+3}")
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
    for path in (tree / "jobs" / "pack.py", tree / "cardamage" / "runs" / "stages.py"):
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
        ("test: {gpus_per_node: 9}", r"stage test \(.*gpus_per_node 9.*SLURM refuses it"),
        ("report: {mem_gb: 9000}", r"stage report \(.*mem_gb 9000.*SLURM refuses it"),
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


def test_a_full_disk_leaves_nothing_queued_and_nothing_half_written(
    submit: Program, slurm, tmp_path: Path
):
    library = failing_disk.build(tmp_path)  # where no space is in the path
    if library is None:
        pytest.skip("builds a library with cc")
    (submit.folder / "later.yaml").write_text(
        "backend: slurm\nall_stages: {cpus_per_task: 1, time_minutes: 5, extra: {begin: now+60}}\n"
    )
    run, before = run_of(submit), slurm.jobs()
    command = ("launch/submit.py", "toy.yaml", "--cluster", "later.yaml")
    full = {"FAULT_CALL": "write", "FAULT_ERRNO": str(errno.ENOSPC), "LD_PRELOAD": str(library)}
    for name, said in (
        ("cardamage/errors.py", "No space left on device: cardamage/errors.py"),
        ("/.config.yaml", "toy/config.yaml: No space left on device; make room there"),
        ("launch.json", "launch.json: No space left on device; make room there"),
        (".submission_file_", "slurm/pack.sbatch: No space left on device; make room there"),
    ):
        line = submit.refuses(*command, **full, FAULT_PATH=name)
        assert said in line
        assert slurm.jobs() == before
        assert not list(submit.folder.rglob("*.part"))
        if run.launch.exists():
            assert json.loads(run.launch.read_text())["ended"]
    (snapshot,) = run.code.iterdir()
    assert (snapshot / "cardamage/errors.py").read_bytes() == (
        ROOT / "cardamage/errors.py"
    ).read_bytes()
    submit.succeeds(*command)
    assert list(jobs_of(run)) == list(STAGES)


def test_slurm_is_the_default_where_it_is(submit: Program, slurm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CARDAMAGE_CLUSTER")
    said = submit.succeeds("launch/submit.py", "toy.yaml", "--dry-run", "--verbose")
    assert "#SBATCH --job-name=toy-train" in said


def test_a_slurm_that_is_down_is_told_of_at_once(submit: Program, slurm, tmp_path):
    conf = tmp_path / "slurm.conf"
    there = slurm.cluster.folder / "slurm.conf"
    conf.write_text(re.sub(r"(?m)^SlurmctldPort=.*$", "SlurmctldPort=1", there.read_text()))
    command = ("launch/submit.py", "toy.yaml", "--cluster", "two.yaml")
    line = submit.refuses(*command, SLURM_CONF=str(conf))
    assert "SLURM does not answer" in line
    assert not (submit.folder / "runs").exists()
    # A dry run asks for nothing that it cannot do without.
    assert "#SBATCH" in submit.succeeds(*command, "--dry-run", "--verbose", SLURM_CONF=str(conf))


def test_a_full_queue_is_told_of_and_nothing_stays_in_it(submit: Program, slurm):
    (submit.folder / "few.yaml").write_text(
        f"{ONE_NODE.replace('time_minutes: 5', 'time_minutes: 5, qos: few')}"
        "pack: {extra: {hold: true}}\n"
    )
    command = ("launch/submit.py", "toy.yaml", "--cluster", "few.yaml")
    before = slurm.jobs()
    line = submit.refuses(*command)  # there is place for two of four
    assert "MaxSubmitJobsPerUser of qos few is 2, of which 0 jobs are queued or running" in line
    assert "at least 4 more, and 2 may be submitted" in line
    assert slurm.jobs() == before

    filling = {slurm.sbatch("true", "--hold", "--qos=few") for _ in range(2)}
    line = submit.refuses(*command)
    assert "of which 2 jobs are queued" in line
    assert slurm.jobs() == before | filling
    assert not run_of(submit).root.exists()
