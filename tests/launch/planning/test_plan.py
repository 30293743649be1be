import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cardamage.errors import ConfigError, RunError
from cardamage.launch.planning.graph import Plan
from cardamage.launch.planning.plan import choose_stages, make_plan
from cardamage.runs.directory import open_run
from cardamage.runs.paths import STAGES, RunPaths, ShardPaths, StudyPaths
from cardamage.runs.stages import StageRecord, read_stage
from cardamage.runs.study import Comparison, open_study
from cardamage.runs.tables import write_table
from cardamage.system.files import sha256_of, write_json
from tests.helpers.markers import write_stage


def test_stages_run_in_their_order_whatever_the_list_says():
    assert choose_stages(None) == ("pack", "train", "test", "report")
    assert choose_stages("train, pack") == ("pack", "train")


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ("pack,trian", r'--stages: "trian" is unknown \(did you mean "train"\?\); allowed: pack,'),
        (",", "--stages names no stage; allowed: pack, train, test, report"),
    ],
)
def test_unknown_stage(names: str, error: str):
    with pytest.raises(ConfigError, match=error):
        choose_stages(names)


def test_each_stage_needs_the_one_before(fake):
    plan = make_plan([fake.config("one")], ["seed=3"], Path("runs"), ("pack", "train", "test"))
    (one,) = plan.plans
    assert [(stage, plan.needs(one, stage)) for stage in one.stages] == [
        ("pack", ()),
        ("train", ((one.run, "pack"),)),
        ("test", ((one.run, "train"),)),
    ]
    assert one.run == RunPaths(Path("runs/one"))
    assert one.experiment.seed == 3


def test_run_directory_stands_for_its_config(fake):
    run = fake.make()
    (plan,) = make_plan([run.root], [], Path("ignored"), ("pack",)).plans
    assert plan.run == run


def test_two_configs_of_one_run_are_refused(fake):
    run = fake.make()
    configs = [fake.config("fake"), run.root]
    with pytest.raises(ConfigError, match=r"fake.yaml and .* are both the run .*another name"):
        make_plan(configs, [], run.root.parent, ("pack",))


def test_run_of_another_config_is_refused(fake):
    run = fake.make()
    run.checkpoints.mkdir()
    run.checkpoint(1).touch()
    with pytest.raises(RunError, match=r"holds a run of another config \(seed: 0, not 1\)"):
        make_plan([fake.config("fake")], ["seed=1"], run.root.parent, ("pack",))


SWEEP = """\
name: s
sweep:
  config: fake.yaml
  grid: {seed: [0, 1, 2]}
"""
STUDY = """\
name: study
experiments:
  plain: {config: fake.yaml}
  small: {config: fake.yaml, overrides: {data.image_size: [16, 16]}}
  again: {config: fake.yaml, overrides: {seed: 1, data.workers: 0}}
compare: [{name: pair, runs: [plain, small]}]
"""


@pytest.fixture
def folder(fake, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep and a study beside the fake experiment, in the current folder."""
    (fake.folder / "sweep.yaml").write_text(SWEEP)
    (fake.folder / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(fake.folder)
    return fake.folder


def planned(*configs: str, overrides: tuple[str, ...] = (), stages=STAGES) -> Plan:
    return make_plan([Path(name) for name in configs], overrides, Path("runs"), stages)


def finish(plan: Plan, *, tested: str = "2026-01-01T00:00:00+00:00") -> None:
    """Do what the stages of all runs would have done, as far as planning looks at it."""
    shards = ShardPaths(Path("shards/packed"))
    shards.root.mkdir(parents=True, exist_ok=True)
    write_json(shards.manifest, {})
    for each in plan.plans:
        open_run(each.run, each.experiment)
        epochs = each.experiment.train.epochs
        each.run.checkpoints.mkdir(exist_ok=True)
        for epoch in range(1, epochs + 1):
            each.run.checkpoint(epoch).touch()
            made = each.run.test_counts(each.experiment.test.split, epoch)
            made.parent.mkdir(parents=True, exist_ok=True)
            made.touch()
        row = dict.fromkeys(("val_loss", "val_miou"), 0.5)
        write_table(each.run.metrics, [{"epoch": e, **row} for e in range(1, epochs + 1)])
        each.run.report.mkdir(exist_ok=True)
        (each.run.report / "index.html").touch()
        table = each.run.test_table(each.experiment.test.split)
        table.write_text(f"tested by {each.experiment.name}")
        config = sha256_of(each.run.config)
        outputs = {
            "pack": {"shards": str(shards.root)},
            "train": {"epochs": epochs},
            "test": {
                "split": each.experiment.test.split,
                "checkpoints": epochs,
                "config": config,
            },
            "report": {"page": "page", "config": config, "tested": sha256_of(table)},
        }
        for stage, output in outputs.items():
            done = StageRecord(stage, "done", started=tested, ended=tested, output=output)
            write_stage(each.run, done)
    for study in plan.studies:
        open_study(study.study, study.record)
        tables = {each.experiment.name: each.run.test_table("test") for each in study.plans}
        of = {name: sha256_of(table) for name, table in tables.items()}
        output = {"page": "its page", "tested": of}
        compared = StageRecord("report", "done", started=tested, output=output)
        write_stage(study.study, compared)


def stages_of(plan: Plan) -> dict[str, list[str]]:
    return {each.run.root.name: list(each.stages) for each in plan.plans}


def test_a_sweep_packs_once_and_ends_in_a_comparison(folder: Path):
    plan = planned("sweep.yaml")
    assert stages_of(plan) == {f"s-seed_{seed}": list(STAGES) for seed in range(3)}
    first, second, third = (each.run for each in plan.plans)
    assert plan.packed_by == {second: first, third: first}
    assert plan.packed_together() == {first: (second, third)}
    assert plan.needs(plan.plans[0], "pack") == ()
    assert plan.needs(plan.plans[1], "pack") == ((first, "pack"),)
    assert plan.needs(plan.plans[1], "train") == ((second, "pack"),)
    (comparison,) = plan.comparisons
    assert comparison.run == StudyPaths(Path("runs/s"))
    assert comparison.stages == ("report",)
    assert plan.needs(comparison, "report") == tuple(
        (run, "test") for run in (first, second, third)
    )
    assert str(plan.studies[0]) == "s: 3 runs"


def test_only_runs_that_pack_alike_share(folder: Path):
    plan = planned("study.yaml", "fake.yaml")
    plain, _, again, alone = (each.run for each in plan.plans)
    assert [run.root.name for run in (plain, again, alone)] == [
        "study-plain",
        "study-again",
        "fake",
    ]
    assert plan.packed_by == {again: plain, alone: plain}
    (study,) = plan.studies
    assert study.record.runs == ("study-plain", "study-small", "study-again")
    assert study.record.compare == (Comparison("pair", ("study-plain", "study-small")),)
    assert study.record.source == str(folder / "study.yaml")


def test_complete_runs_are_left_out(folder: Path):
    finish(planned("sweep.yaml"))
    plan = planned("sweep.yaml")
    assert (plan.plans, plan.comparisons) == ((), ())
    assert [each.run.root.name for each in plan.complete] == ["s-seed_0", "s-seed_1", "s-seed_2"]
    assert str(plan.studies[0]) == "s: all 3 runs are complete; its page"


@pytest.mark.parametrize(
    ("spoil", "missing"),
    [
        (lambda run: write_stage(run, StageRecord("report", "failed")), ["report"]),
        (lambda run: write_stage(run, StageRecord("test", "stopped")), ["test", "report"]),
        (
            lambda run: write_stage(run, StageRecord("train", "failed")),
            ["train", "test", "report"],
        ),
        (lambda run: shutil.rmtree(run.checkpoints), ["train", "test", "report"]),
        (lambda run: run.metrics.unlink(), ["train", "test", "report"]),
        (lambda run: run.test_counts("test", 1).unlink(), ["test", "report"]),
        (lambda run: shutil.rmtree(run.report), ["report"]),
        (lambda run: run.config.write_text(run.config.read_text() + "\n"), ["test", "report"]),
        (lambda run: shutil.rmtree(run.root), list(STAGES)),
    ],
)
def test_only_what_is_missing_runs_again(folder: Path, spoil, missing: list[str]):
    finish(planned("sweep.yaml"))
    spoil(RunPaths(Path("runs/s-seed_1")))
    plan = planned("sweep.yaml")
    assert stages_of(plan) == {"s-seed_1": missing}
    (comparison,) = plan.comparisons
    tested = ((plan.plans[0].run, "test"),) if "test" in missing else ()
    assert plan.needs(comparison, "report") == tested
    assert str(plan.studies[0]) == "s: 2 of 3 runs are complete; to do: s-seed_1"


def test_a_checkpoint_that_was_deleted_is_told_and_nothing_is_queued(folder: Path):
    finish(planned("sweep.yaml"))
    RunPaths(Path("runs/s-seed_1")).checkpoint(1).unlink()
    plan = planned("sweep.yaml")
    assert plan.plans == ()
    (line,) = plan.nothing_to_do()
    assert "s-seed_1" in line
    assert "epoch 1" in line


def test_the_last_checkpoint_comes_from_a_state_that_is_still_there(folder: Path):
    finish(planned("sweep.yaml"))
    run = RunPaths(Path("runs/s-seed_1"))
    run.checkpoint(2).unlink()
    run.resume.mkdir()
    run.state(9).touch()
    write_json(run.progress, {"epoch": 2, "step": 9})
    assert stages_of(planned("sweep.yaml")) == {"s-seed_1": ["train", "test", "report"]}


def test_a_lone_run_that_is_complete_has_no_stage(folder: Path, fake):
    plan = make_plan([fake.config("fake")], [], fake.run.root.parent, STAGES)
    finish(plan)
    plan = make_plan([fake.config("fake")], [], fake.run.root.parent, STAGES)
    assert plan.plans == ()
    assert [line.partition(":")[0] for line in plan.nothing_to_do()] == ["fake"]


def test_shards_that_are_gone_are_packed_again_for_runs_that_still_read_them(folder: Path):
    finish(planned("sweep.yaml"))
    shutil.rmtree("shards")
    write_stage(RunPaths(Path("runs/s-seed_1")), StageRecord("train", "failed"))
    assert stages_of(planned("sweep.yaml")) == {"s-seed_1": list(STAGES)}


def test_more_epochs_and_another_test_are_missing(folder: Path):
    finish(planned("sweep.yaml"))
    longer = stages_of(planned("sweep.yaml", overrides=("train.epochs=3",)))
    assert list(longer.values()) == [["train", "test", "report"]] * 3
    retested = stages_of(planned("sweep.yaml", overrides=("test.split=valid",)))
    assert list(retested.values()) == [["test", "report"]] * 3
    reported = stages_of(planned("sweep.yaml", overrides=("data.workers=0",)))
    assert reported == {}


def test_comparison_is_made_again_when_a_run_was_tested_since(folder: Path):
    finish(planned("sweep.yaml"))
    run = RunPaths(Path("runs/s-seed_2"))
    run.test_table("test").write_text("tested anew")
    plan = planned("sweep.yaml")
    assert stages_of(plan) == {"s-seed_2": ["report"]}
    assert len(plan.comparisons) == 1
    report = read_stage(run, "report")
    of = {**report.output, "tested": sha256_of(run.test_table("test"))}
    write_stage(run, replace(report, output=of))
    plan = planned("sweep.yaml")
    assert (plan.plans, len(plan.comparisons)) == ((), 1)
    assert str(plan.studies[0]).endswith("all 3 runs are complete; their comparison is missing")


@pytest.mark.parametrize("clock", [0.0, 4e9])
def test_what_the_clocks_say_makes_nothing_missing(folder: Path, clock: float):
    finish(planned("sweep.yaml"), tested="2099-01-01T00:00:00+00:00")
    for path in Path("runs").rglob("*"):
        os.utime(path, (clock, clock))
    plan = planned("sweep.yaml")
    assert (plan.plans, plan.comparisons) == ((), ())


def test_comparison_is_made_again_of_other_runs(folder: Path):
    finish(planned("sweep.yaml"))
    (folder / "sweep.yaml").write_text(SWEEP.replace("[0, 1, 2]", "[0, 2]"))
    plan = planned("sweep.yaml")
    assert (plan.plans, len(plan.comparisons)) == ((), 1)


def test_no_comparison_without_the_report_stage_or_of_one_run(folder: Path):
    assert planned("sweep.yaml", stages=("pack", "train")).comparisons == ()
    (folder / "sweep.yaml").write_text(SWEEP.replace("[0, 1, 2]", "[5]"))
    assert planned("sweep.yaml").comparisons == ()


def test_a_study_can_be_submitted_again_by_its_folder(folder: Path):
    plan = planned("study.yaml")
    finish(plan)
    (folder / "study.yaml").unlink()
    write_stage(RunPaths(Path("runs/study-small")), StageRecord("report", "failed"))
    again = planned("runs/study")
    assert stages_of(again) == {"study-small": ["report"]}
    assert again.studies[0].record == plan.studies[0].record
    shutil.rmtree("runs/study-again")
    with pytest.raises(
        RunError, match=r"runs/study-again, a run of runs/study, is gone; submit .*study"
    ):
        planned("runs/study")


@pytest.mark.parametrize("order", [("sweep.yaml", "fake.yaml"), ("fake.yaml", "sweep.yaml")])
def test_run_and_study_of_one_name(folder: Path, order: tuple[str, str]):
    (folder / "sweep.yaml").write_text(SWEEP.replace("name: s", "name: fake"))
    with pytest.raises(ConfigError, match="are both the run runs/fake; give one of them another"):
        planned(*order)


def test_study_named_as_a_run_that_is_there_and_the_reverse(folder: Path, fake):
    fake.make()
    (folder / "sweep.yaml").write_text(SWEEP.replace("name: s", "name: fake"))
    with pytest.raises(RunError, match="runs/fake is a run; choose another name for the study"):
        planned("sweep.yaml")
    (folder / "sweep.yaml").write_text(SWEEP)
    finish(planned("sweep.yaml"))
    with pytest.raises(RunError, match="runs/s is the folder of a study; choose another name"):
        planned(str(fake.config("s").name))


def test_run_of_a_study_that_is_there_with_another_config(folder: Path):
    finish(planned("sweep.yaml"))
    with pytest.raises(RunError, match=r"runs/s-seed_0 holds a run of another config \(optim.lr"):
        planned("sweep.yaml", overrides=("optim.lr=0.5",))


def test_damaged_record(folder: Path):
    finish(planned("study.yaml"))
    Path("runs/study/study.json").write_text("{}")
    with pytest.raises(RunError, match=r"study.json is damaged; submit the study again"):
        planned("runs/study")


@pytest.mark.parametrize("is_done", [False, True])
def test_planning_two_hundred_runs_is_quick(folder: Path, is_done: bool):
    (folder / "sweep.yaml").write_text(SWEEP.replace("[0, 1, 2]", str(list(range(200)))))
    if is_done:
        finish(planned("sweep.yaml"))
    started = time.process_time()
    plan = planned("sweep.yaml")
    assert time.process_time() - started < 1.0
    assert len(plan.complete if is_done else plan.plans) == 200
