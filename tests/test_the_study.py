"""``configs/study.yaml``, the study this project grew from: its graph, and a run at toy size."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cardamage.config import recipe
from cardamage.launch.planning.graph import Plan
from cardamage.launch.planning.plan import make_plan
from cardamage.runs.directory import open_run
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import open_study
from cardamage.system.files import sha256_of
from tests.helpers.programs import ROOT, Program

FILE = ROOT / "configs" / "study.yaml"
TOY = (
    "data.source=synthetic",
    "data.synthetic={images: 60, size: 40}",
    "data.classes=[scratch, dent, broken lamp]",
    "data.image_size=[16, 16]",
    "train.epochs=2",
    "train.batch_size=8",
    "model.name=segnet2",  # 13 runs of a small network; all seven are in tests/test_models.py
    "test.overlays=2",
)
EXPERIMENTS = {  # model, its softmax, hyperparameters, share of the data, epochs
    "e1": ("fcn_resnet50", None, "h1", 0.4, 5),
    "e2": ("fcn_resnet50", None, "h2", 0.4, 5),
    "e3": ("deeplabv3_resnet50", None, "h1", 0.4, 5),
    "e4": ("deeplabv3_resnet50", None, "h2", 0.4, 5),
    "e5": ("fcn_resnet50", None, "h2", 1.0, 4),
    "e6": ("fcn_resnet50", None, "h1", 1.0, 10),
    "e7": ("deeplabv3_resnet50", None, "h1", 1.0, 10),
    "e8": ("segnet2", True, "h1", 1.0, 8),
    "e9": ("segnet3", True, "h1", 1.0, 8),
    "e8_repaired": ("segnet2", False, "h1", 1.0, 8),
    "e9_repaired": ("segnet3", False, "h1", 1.0, 8),
    "e10": ("unet", None, "h1", 1.0, 10),
    "e11": ("unet2", None, "h1", 1.0, 10),
}
HYPERPARAMETERS = {
    "h1": (recipe.Adam(name="adam", lr=0.001), 16),
    "h2": (recipe.SGD(name="sgd", lr=0.01, momentum=0.9), 32),
    "h3": (recipe.AdamW(name="adamw", lr=0.001, weight_decay=1e-4), 8),
}


def short(run: RunPaths) -> str:
    return run.root.name.removeprefix("study-")


def planned(path: Path = FILE, *overrides: str) -> Plan:
    return make_plan([path], overrides, Path("runs"), STAGES)


def test_experiments_are_those_of_the_study():
    found = {
        each.experiment.name.removeprefix("study-"): each.experiment for each in planned().plans
    }
    assert set(found) == set(EXPERIMENTS)
    for name, (model, softmax, hyperparameters, subset, epochs) in EXPERIMENTS.items():
        each = found[name]
        assert (each.model.name, getattr(each.model, "softmax_output", None)) == (model, softmax)
        assert (each.optim, each.train.batch_size) == HYPERPARAMETERS[hyperparameters], name
        assert (each.data.subset, each.train.epochs) == (subset, epochs), name
        assert each.data.image_size == (240, 240)
        assert each.data.classes == ["No Damage", "Severe Damages"]
        assert each.loss == recipe.CrossEntropy()
        assert (each.continue_from is None) == (name != "e5")


def test_what_the_study_left_out_is_there():
    plans = planned(FILE.with_name("study_rest.yaml")).plans
    found = {plan.experiment.name: plan.experiment for plan in plans}
    for name, expected in HYPERPARAMETERS.items():
        each = found[f"study_rest-unet2_{name}"]
        assert (each.optim, each.train.batch_size) == expected
    assert found["study_rest-segnet1_h1"].model.name == "segnet1"


def test_its_graph_packs_twice_and_e5_waits_for_e2():
    plan = planned()
    together = plan.packed_together().items()
    packed = {short(first): [short(run) for run in others] for first, others in together}
    assert packed == {
        "e1": ["e2", "e3", "e4"],
        "e5": ["e6", "e7", "e8", "e9", "e8_repaired", "e9_repaired", "e10", "e11"],
    }
    (e5,) = (each for each in plan.plans if each.experiment.name == "study-e5")
    assert plan.needs(e5, "train") == ((e5.run, "pack"), (RunPaths(Path("runs/study-e2")), "train"))


def test_a_dry_run_shows_the_graph_without_the_dataset(program: Program):
    result = program("launch/submit.py", FILE, "--dry-run")
    assert result.returncode == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "study: 13 runs"
    assert (
        "one dataset, packed once by study-e1, for study-e1, study-e2, study-e3, study-e4" in lines
    )
    assert (
        "study-e5 begins with the last checkpoint of study-e2: its train waits for that of study-e2"
        in lines
    )
    assert "fig12_checkpoints compares study-e7@7, study-e6@2, study-e6@4" in lines
    assert "fig19_checkpoints compares study-e11@9, study-e8@7, study-e6@2" in lines
    assert "2. train (after pack, train of runs/study-e2): 0 of 4 epochs are done" in lines
    (refused,) = [line for line in lines if line.startswith("would be refused: ")]
    assert f"{ROOT / 'data' / 'car-damages'} does not exist" in refused
    assert not list(program.folder.iterdir())


def jobs_in_order(plan: Plan) -> Iterator[tuple[RunPaths, str]]:
    """Every job of the plan, each after those it needs, as a backend would start them."""
    done: set[tuple[RunPaths, str]] = set()
    for each in (*plan.plans, *plan.comparisons):
        for stage in each.stages:
            assert set(plan.needs(each, stage)) <= done, (each.run, stage)
            yield each.run, stage
            done.add((each.run, stage))


@pytest.mark.slow
def test_all_of_it_runs_at_toy_size(program: Program, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(program.folder)
    plan = planned(FILE, *TOY)
    for each in plan.plans:
        open_run(each.run, each.experiment)
    for study in plan.studies:
        open_study(study.study, study.record)
    for run, stage in jobs_in_order(plan):
        if stage != "report" or isinstance(run, StudyPaths):  # no comparison needs a run's own
            program.succeeds(f"jobs/{stage}.py", run.root)

    # Two packed datasets serve 13 runs, and one holds 40 % of the other's images.
    packed = {
        name: read_stage(RunPaths(Path("runs", f"study-{name}")), "pack").output
        for name in EXPERIMENTS
    }
    assert {output["shards"] for output in packed.values()} == {
        packed["e2"]["shards"],
        packed["e5"]["shards"],
    }

    # e5 began with the last weights of e2.
    origin = json.loads(Path("runs/study-e5/continued_from.json").read_text())
    source = RunPaths(Path("runs/study-e2"))
    assert (origin["run"], origin["epoch"]) == ("runs/study-e2", 2)
    assert origin["weights_sha256"] == sha256_of(source.checkpoint(2))

    study = StudyPaths(Path("runs/study"))
    pages = read_stage(study, "report").output["comparisons"]
    assert set(pages) == {name for name in pages if Path(pages[name]).is_file()}
    picked = Path(pages["fig19_checkpoints"]).with_name("summary.md").read_text()
    for label, asked in (("study-e11@2", "study-e11@9"), ("study-e8@2", "study-e8@7")):
        assert f"| {label} |" in picked
        assert f"{label} stands for {asked}" in picked
    mended = Path(pages["softmax_repaired"]).with_name("summary.md").read_text()
    assert "its loss cannot fall below 0.744" in mended

    # Its tables come out for the docs; most comparisons are not drawn anew, which takes long.
    (of_study,) = plan.studies
    brief = replace(of_study.record, compare=of_study.record.compare[-1:])
    open_study(of_study.study, brief)
    program.succeeds("docs/study/collect.py", "--into", "docs", "toy=runs/study")
    assert {path.parent.name for path in Path("docs").glob("*/*/summary.md")} == {
        comparison.name for comparison in of_study.record.compare
    }
    assert Path("docs/toy/summary.md").is_file()
    tables = [path.read_text() for path in Path("docs").rglob("summary.md")]
    assert not any("pictures.png" in text for text in tables)
    assert all("## Each class" in text for text in tables)
    figures = {path.name for path in Path("docs").rglob("*.png")}
    assert figures == {"scores.png", "costs.png", "validation.png", "tests.png"}
