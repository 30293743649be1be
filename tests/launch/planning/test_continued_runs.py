"""Runs that continue other runs: their order, what they wait for, and what is refused at once."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from cardamage.config import loading
from cardamage.errors import ConfigError, RunError, UserError
from cardamage.launch.planning.forecast import outline
from cardamage.launch.planning.graph import Plan
from cardamage.launch.planning.plan import make_plan
from cardamage.launch.planning.preflight import check_continued
from cardamage.launch.planning.profiles import SlurmProfile
from cardamage.launch.slurm.plan import Submission, plan_submission
from cardamage.launch.slurm.site import Site
from cardamage.launch.watching.record import new_launch
from cardamage.runs.directory import open_run
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import StageRecord
from cardamage.system.files import write_json
from tests.helpers.markers import write_stage

BASE: dict[str, Any] = {
    "name": "base",
    "data": {"source": "synthetic", "classes": ["scratch"], "image_size": [32, 32]},
    "model": {"name": "segnet2"},
    "optim": {"name": "adam"},
    "train": {"epochs": 2},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(*overrides: str, **experiments: dict[str, Any]) -> Plan:
    """The plan of a study whose experiments are the base with these overrides."""
    listed = {name: {"config": "base.yaml", "overrides": own} for name, own in experiments.items()}
    Path("study.yaml").write_text(yaml.safe_dump({"name": "study", "experiments": listed}))
    return make_plan([Path("study.yaml")], overrides, Path("runs"), STAGES)


def after(run: str, checkpoint: object = "last", **more: Any) -> dict[str, Any]:
    return {"continue_from": {"run": run, "checkpoint": checkpoint}, **more}


def names(plan: Plan) -> list[str]:
    return [each.experiment.name.removeprefix("study-") for each in plan.plans]


def trained(name: str, **parts: Any) -> RunPaths:
    """A run directory whose two epochs are trained."""
    run = RunPaths(Path("runs", name))
    open_run(run, loading.parse({**BASE, "name": name, **parts}))
    run.checkpoints.mkdir()
    for epoch in (1, 2):
        run.checkpoint(epoch).touch()
    write_stage(run, StageRecord("train", "done", output={"epochs": 2}))
    return run


def test_a_run_comes_after_the_one_it_continues(folder: Path):
    plan = study(a={}, b=after("c"), c=after("d"), d={"seed": 1}, e=after("a"))
    assert names(plan) == ["a", "d", "c", "b", "e"]
    assert list(plan.studies[0].record.runs) == [f"study-{key}" for key in "abcde"]
    b = next(each for each in plan.plans if each.experiment.name == "study-b")
    assert plan.needs(b, "train") == ((b.run, "pack"), (RunPaths(Path("runs/study-c")), "train"))
    assert plan.needs(b, "test") == ((b.run, "train"),)
    check_continued(plan, may_wait=False)
    line = "begins with the last checkpoint of study-c: its train waits for that of study-c"
    assert f"study-b {line}" in outline(plan)


def test_a_path_may_lead_to_a_run_of_the_same_submission(folder: Path):
    plan = study(a=after("./runs/study-b", 2), b={"seed": 1})
    assert names(plan) == ["b", "a"]
    assert "a begins with the checkpoint of epoch 2 of ./runs/study-b: its train" in "\n".join(
        outline(plan)
    )


def test_circles_are_refused(folder: Path):
    with pytest.raises(
        ConfigError, match=r"-a continues study-b continues study-c continues study-a, so "
    ):
        study(a=after("b"), b=after("c"), c=after("a"))
    with pytest.raises(ConfigError, match="d continues study-d, so none can be first"):
        study(d=after("runs/study-d"))


@pytest.mark.parametrize(
    ("experiments", "error"),
    [
        ({"a": after("gone")}, r"runs/study-a continues runs/gone, which is no run directory"),
        ({"a": {}, "b": after("a", 3)}, "3 lies behind the last epoch of runs/study-a, which"),
        (
            {"a": {}, "b": after("a", model={"name": "unet"})},
            "b continues runs/study-a, whose model is segnet2, not unet",
        ),
        (
            {"a": {}, "b": after("a", **{"data.classes": ["dent"]})},
            "b continues runs/study-a, whose classes are scratch, not dent",
        ),
    ],
)
def test_what_cannot_be_continued_is_refused_at_once(folder: Path, experiments: Any, error: str):
    with pytest.raises(UserError, match=error):
        check_continued(study(**experiments), may_wait=False)


def test_a_finished_run_is_not_waited_for(folder: Path):
    trained("a")
    plan = study(b=after("a"))
    check_continued(plan, may_wait=False)
    assert plan.continues == {}
    assert list(outline(plan)) == ["study-b begins with the last checkpoint of a"]


def test_a_run_that_has_begun_needs_the_other_no_more(folder: Path):
    plan = study(b=after("gone"))
    open_run(plan.plans[0].run, plan.plans[0].experiment)
    plan.plans[0].run.resume.mkdir()
    check_continued(study(b=after("gone")), may_wait=False)
    assert not list(outline(plan))


def test_a_source_that_is_not_trained_in_this_submission_has_to_be_there(folder: Path):
    study(a={}, b=after("a"))
    plan = make_plan([Path("study.yaml")], [], Path("runs"), ("pack",))
    check_continued(plan, may_wait=False)  # nothing is trained
    assert plan.continues == {}


def queued(plan: Plan, **options: Any) -> Submission:
    profile = SlurmProfile.model_validate({"backend": "slurm"})
    return plan_submission(plan, profile, "big", Site({}, 1001), **options)


def waits(submission: Submission) -> dict[str, str]:
    """What each training waits for, by the names of its runs."""
    return {
        "+".join(work.run.name.removeprefix("study-") for work in job.works): ", ".join(
            map(str, job.after)
        )
        for job in submission.jobs
        if job.stage == "train"
    }


def options(submission: Submission, ids: dict[str, str]) -> list[str]:
    """What each training waits for, as sbatch reads it."""
    trainings = (job for job in submission.jobs if job.stage == "train")
    return [",".join(need.option(ids) for need in job.after) for job in trainings]


def test_on_slurm_it_waits_for_that_element_of_the_array(folder: Path):
    plan = study(e1={}, e2={"seed": 2}, e5=after("e2"), e6={"seed": 6})
    submission = queued(plan)
    assert waits(submission) == {
        "e1+e2+e6": "afterok pack",
        "e5": "afterok pack, afterok train-part0_1",
    }
    assert options(submission, {"pack": "7", "train-part0": "8"})[-1] == "afterok:7,afterok:8_1"


def test_on_slurm_jobs_come_after_those_they_wait_for_across_datasets(folder: Path):
    large = {"data.image_size": [64, 64]}
    plan = study(a=after("b"), b=large, c=after("d", **large), d={"seed": 1})
    submission = queued(plan)
    assert waits(submission) == {
        "b": "afterok pack-0",
        "a": "afterok pack-1, afterok train-0-part0",
        "d": "afterok pack-1",
        "c": "afterok pack-0, afterok train-1-part1",
    }
    seen: set[str] = set()
    for job in submission.jobs:
        assert {need.job for need in job.after} <= seen
        seen.add(job.label)


def test_runs_that_continue_the_same_one_are_an_array(folder: Path):
    plan = study(a={}, **{f"b{seed}": after("a", seed=seed) for seed in range(3)})
    assert waits(queued(plan)) == {
        "a": "afterok pack",
        "b0+b1+b2": "afterok pack, afterok train-part0",
    }


def says(folder: Path, command: str, answer: str) -> None:
    """Put a command of SLURM's on the path."""
    path = folder / "bin" / command
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)


@pytest.fixture
def busy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A run that was queued before: the SLURM on the path says that its job 12_3 runs."""
    run = RunPaths(Path("runs/a"))
    open_run(run, loading.parse({**BASE, "name": "a"}))
    launch = asdict(new_launch("slurm", "big", [], {"train": []}))
    write_json(run.launch, {**launch, "ended": "then", "jobs": {"train": "12_3"}})
    (folder / "bin").mkdir()
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")
    says(folder, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    says(folder, "squeue", "echo '12_3|15|RUNNING|None|n0|0|2026-11-22T15:50:26|main||'")
    return run


def test_on_slurm_it_waits_for_a_training_that_was_queued_before(busy: RunPaths):
    plan = study(b=after("a"))
    check_continued(plan, may_wait=True)
    submission = queued(plan)
    assert waits(submission) == {"b": "afterok pack, afterok 12_3"}
    assert options(submission, {"pack": "7"}) == ["afterok:7,afterok:12_3"]


def test_this_machine_does_not_wait_for_jobs_of_a_cluster(busy: RunPaths):
    with pytest.raises(RunError, match="whose stage train is waiting with 0 of 2 epochs; train it"):
        check_continued(study(b=after("a")), may_wait=False)


@pytest.mark.parametrize(
    ("own", "error"),
    [
        (after("a", model={"name": "unet"}), "whose model is segnet2, not unet"),
        (after("a", 7), "7 lies behind the last epoch"),
    ],
)
def test_a_queued_training_has_to_fit(busy: RunPaths, own: dict[str, Any], error: str):
    with pytest.raises(ConfigError, match=error):
        check_continued(study(b=own), may_wait=True)


def test_where_slurm_cannot_be_asked_nobody_waits(busy: RunPaths, folder: Path):
    says(folder, "scontrol", "echo 'Slurmctld(primary) at head is DOWN'; exit 1")
    with pytest.raises(RunError, match=r"nobody can tell whether job 12_3 still trains that: .*"):
        check_continued(study(b=after("a")), may_wait=True)


@pytest.mark.slow
def test_here_a_run_whose_source_fails_fails_with_it(toy):
    text = (toy.folder / "toy.yaml").read_text()
    (toy.folder / "diverging.yaml").write_text(text.replace("lr: 0.003", "lr: 1e30"))
    listed = {
        "late": {"config": "toy.yaml", "overrides": after("early", **{"train.epochs": 1})},
        "early": {"config": "diverging.yaml", "overrides": {"train.epochs": 1}},
    }
    content = {"name": "pair", "experiments": listed}
    (toy.folder / "pair.yaml").write_text(yaml.safe_dump(content))
    result = toy("launch/submit.py", "pair.yaml")
    assert result.returncode == 1, result.stderr
    state = json.loads((toy.folder / "runs/pair-late/stages/train.json").read_text())
    assert (state["state"], state["exit_status"]) == ("failed", 2)
    assert (
        "continues the last checkpoint of runs/pair-early, whose stage train is failed"
        in (state["error"])
    )
