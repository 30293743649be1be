"""A sweep on a real SLURM, of which some runs fail and only those are run again."""

import re

import pytest

from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from tests.helpers.programs import Program
from tests.helpers.submissions import ONE_NODE, TOY, jobs_of, run_of, states, wait_until_over

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SWEEP = """\
name: rates
sweep:
  config: toy.yaml
  overrides: {train.epochs: 1}
  grid: {optim.lr: [0.001, 0.002], seed: [0, 1]}
"""


def test_of_a_sweep_of_four_only_the_two_that_failed_are_run_again(program: Program, slurm):
    for name, text in (
        ("toy", TOY),
        ("sweep", SWEEP),
        ("one", f"{ONE_NODE}starts_without_progress: 1\n"),
    ):
        (program.folder / f"{name}.yaml").write_text(text)
    command = ("launch/submit.py", "sweep.yaml", "--cluster", "one.yaml")
    said = program.succeeds(*command).splitlines()
    assert said[0] == "rates: 4 runs"
    runs = [run_of(program, line.partition(":")[0]) for line in said[1:-1]]
    broken = [runs[1], runs[3]]
    for run in broken:  # before they are trained: packing comes first
        run.checkpoints.write_text("a file where a folder has to be\n")
    assert len({jobs_of(run)["pack"] for run in runs}) == 1
    # MaxArraySize is 3 there: two arrays.
    assert len({jobs_of(run)["train"].partition("_")[0] for run in runs}) == 2
    study = run_of(program, "rates")
    for run in (*runs, study):
        wait_until_over(slurm, run)
    for run in runs:
        wanted = [
            "done",
            *(["failed", "cancelled", "cancelled"] if run in broken else ["done"] * 3),
        ]
        assert states(run) == wanted, program("launch/status.py").stdout
    error = str(read_stage(broken[0], "train").error)
    assert "/checkpoints" in error
    assert "a file is where a folder should be" in error
    assert len(read_stage(study, "report").output["tested"]) == 2
    before, trained = accounted(slurm), {run: of_training(run) for run in runs}

    for run in broken:
        run.checkpoints.unlink()
    again = program.succeeds(*command, "--follow")
    names = [run.root.name for run in broken]
    assert f"rates: 2 of 4 runs are complete; to do: {', '.join(names)}\n" in again
    assert [states(run) for run in runs] == [["done"] * 4] * 4
    assert read_stage(study, "report").state == "done"
    # Two arrays of two, a report each, and the comparison; no packing.
    new = {job: name for job, name in accounted(slurm).items() if job not in before}
    stages = ("train", "test", "report")
    assert sorted(new.values()) == sorted(
        ["rates-report", *(f"rates-{stage}" for stage in stages for _ in broken)]
    )
    assert {jobs_of(run)[stage] for run in broken for stage in stages} < set(new)
    for run in runs:
        assert (of_training(run) == trained[run]) == (run not in broken)


def test_where_few_jobs_may_be_submitted_runs_take_turns(program: Program, slurm):
    texts = {
        "toy": TOY,
        "sweep": "name: few\nsweep: {config: toy.yaml, overrides: {train.epochs: 1}, "
        "grid: {seed: [0, 1, 2]}}\n",
        "some": ONE_NODE.replace("minutes: 5", "minutes: 5, qos: some"),
    }
    for name, text in texts.items():
        (program.folder / f"{name}.yaml").write_text(text)
    program.succeeds("launch/submit.py", "sweep.yaml", "--cluster", "some.yaml")
    runs = [run_of(program, f"few-seed_{seed}") for seed in range(3)]
    jobs = [jobs_of(run)["train"] for run in runs]
    assert jobs[0] == jobs[2] != jobs[1]
    runs[0].checkpoints.write_text("a file where a folder has to be\n")
    for run in (*runs, run_of(program, "few")):
        wait_until_over(slurm, run)
    assert states(runs[0]) == ["done", "failed", "cancelled", "cancelled"]
    for run in runs[1:]:
        assert states(run) == ["done"] * 4
    assert read_stage(run_of(program, "few"), "report").state == "done"
    alone = ("launch/submit.py", "toy.yaml", "name=alone", "seed=2", "train.epochs=1")
    program.succeeds(*alone, "--stages", "pack,train", "--cluster", "local")
    last, there = runs[2], run_of(program, "alone")
    assert last.checkpoint(1).read_bytes() == there.checkpoint(1).read_bytes()
    assert last.metrics.read_bytes() == there.metrics.read_bytes()


def accounted(slurm) -> dict[str, str]:
    """The names of all jobs that accounting knows, elements of arrays one by one, by id."""
    lines = slurm.output("sacct", "-n", "-X", "-P", "-o", "JobID,JobName").splitlines()
    return dict(line.split("|") for line in lines if not re.search(r"\[", line))


def of_training(run: RunPaths) -> tuple[str | None, int]:
    """What changes when a run is trained again."""
    record = read_stage(run, "train")
    return record.job_id, record.attempts
