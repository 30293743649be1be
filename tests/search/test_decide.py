"""What a search decides, from results that are written here instead of trained for."""

import math
from pathlib import Path

import pytest

from cardamage import errors
from cardamage.config import yaml12
from cardamage.config.search import SearchSettings
from cardamage.config.study import expand
from cardamage.errors import ConfigError, RunError
from cardamage.launch.planning.plan import make_plan
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.rung import read_rung
from cardamage.runs.stages import StageRecord
from cardamage.runs.study import open_study
from cardamage.runs.tables import write_table
from cardamage.search import decide, optuna_study
from cardamage.search.decide import advance, decided, open_search, ranked
from cardamage.search.record import SearchRecord, read_search, rounds_of, taken_up, trial_run
from tests.helpers.markers import write_stage

BASE = """\
data: {source: synthetic, classes: [scratch, dent], image_size: [32, 32]}
model: {name: segnet2}
optim: {name: adam}
train: {epochs: 9}
test: {select_by: miou}
"""
SEARCH = """\
name: found
sweep:
  config: base.yaml
  space:
    optim.lr: {low: 1.0e-4, high: 1.0e-1, log: true}
    train.batch_size: {low: 4, high: 32, step: 4}
    augment: [[], [{name: horizontal_flip}]]
  search: {method: tpe, trials: 12, parallel: 5}
  halving: {rungs: [1, 3], keep: 0.33}
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyPaths:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("search.yaml").write_text(SEARCH)
    return StudyPaths(Path("runs/found"))


def settings(text: str = SEARCH, *overrides: str) -> SearchSettings:
    found = expand(Path("search.yaml"), yaml12.load(text), overrides).search
    assert found is not None
    return found


def quality(record: SearchRecord, trial: int, epoch: int) -> float:
    """A made-up score: best at a rate of 0.01, better with more epochs; trial 4 is broken."""
    distance = abs(math.log10(record.values[trial]["optim.lr"]) + 2)
    return math.nan if trial == 4 else 1 - 0.3 * distance - 0.2 / epoch


def train(study: StudyPaths, record: SearchRecord) -> None:
    """What training up to the present rung would leave."""
    present = record.present()
    for trial in record.rounds[-1]:
        run = trial_run(study, trial)
        rows = [
            {"epoch": epoch, "val_miou": quality(record, trial, epoch)}
            for epoch in range(1, present.last_epoch + 1)
        ]
        run.root.mkdir(parents=True, exist_ok=True)
        write_table(run.metrics, rows)
        write_stage(run, StageRecord("train", "done", output={"epochs": present.last_epoch}))
        run.checkpoints.mkdir(exist_ok=True)
        run.checkpoint(present.last_epoch).touch()


def searched(study: StudyPaths, record: SearchRecord) -> SearchRecord:
    """The search at its end."""
    while (record := advance(study, record)).goes_on():
        train(study, record)
    return record


def test_rounds_are_known_from_the_start(study: StudyPaths):
    told = [(each.size, each.last_epoch, each.draws) for each in rounds_of(settings())]
    assert told == [
        *((5, 1, True), (5, 1, True), (2, 1, True)),
        *((4, 3, False), (1, 9, False)),  # 12 * 0.33 = 3.96; 4 * 0.33 = 1.32
    ]
    plain = settings(
        SEARCH.replace("tpe", "random").replace(", parallel: 5", "").split("  halv")[0]
    )
    assert [(each.size, each.last_epoch, each.is_final) for each in rounds_of(plain)] == [
        (12, 9, True)
    ]


def test_a_search_ends_with_the_best_and_decides_the_same_again(study: StudyPaths):
    record = searched(study, SearchRecord(settings=settings()))
    assert [len(trials) for trials in record.rounds] == [5, 5, 2, 4, 1]
    scores = {trial: quality(record, trial, 9) for trial in range(12) if trial != 4}
    order = sorted(scores, key=lambda trial: -scores[trial])
    assert record.rounds[3] == sorted(order[:4])
    assert record.finalists() == order[:1]
    for values in record.values:
        assert 1e-4 <= values["optim.lr"] <= 1e-1
        assert values["optim.lr"] == float(f"{values['optim.lr']:.4g}")
        assert values["train.batch_size"] in range(4, 33, 4)
        assert values["augment"] in ([], [{"name": "horizontal_flip"}])
    # Killed before a decision was stored, the next start makes it from the same results.
    for rounds in range(1, 5):
        before = record.model_copy(
            update={
                "rounds": record.rounds[:rounds],
                "values": record.values[: max(map(max, record.rounds[:rounds])) + 1],
            }
        )
        assert advance(study, before) == record
    assert advance(study, SearchRecord(settings=settings())) == record


def test_tpe_learns_and_seeds_differ(study: StudyPaths):
    record = advance(study, SearchRecord(settings=settings()))
    other = advance(
        study, SearchRecord(settings=settings(SEARCH.replace("parallel", "seed: 1, parallel")))
    )
    assert record.values != other.values
    scores = [-abs(math.log10(values["optim.lr"]) + 3) for values in record.values]
    low, high = (
        optuna_study.draw(record.settings, record.values, [s * sign for s in scores], 5)
        for sign in (1, -1)
    )
    assert low != high


def test_a_trial_that_fails_for_good_does_not_go_on(study: StudyPaths):
    record = advance(study, SearchRecord(settings=settings()))
    train(study, record)
    dead = trial_run(study, 0)
    dead.metrics.unlink()
    write_stage(dead, StageRecord("train", "failed", error="a defect", error_class="fault"))
    assert advance(study, record) == record  # it is started again
    after = advance(study, record, given_up=[dead])
    assert len(after.rounds) == 2
    while after.goes_on():
        train(study, after)
        after = decided(study, after)
    assert 0 not in after.rounds[3]
    for trial in range(5):
        trial_run(study, trial).metrics.unlink(missing_ok=True)
    with pytest.raises(RunError, match=r"none of 5 trials came to epoch 1 .*train: a defect"):
        decided(study, record)


def test_what_is_decided_is_published_and_belongs_to_its_search(study: StudyPaths):
    plan = make_plan([Path("search.yaml")], [], Path("runs"), STAGES)
    (planned,) = plan.studies
    assert planned.search is not None
    assert [each.stages for each in plan.plans] == [("pack", "train")] * 5
    assert not study.root.exists()
    open_study(study, planned.record)
    open_search(study, planned.search)
    assert read_search(study) == planned.search
    assert [read_rung(trial_run(study, trial)) for trial in range(5)] == [1] * 5
    assert study.journal.is_file()
    assert [*study.root.glob(".*")] == []
    changed = settings(SEARCH.replace("0.33", "0.5"))
    assert taken_up(study, changed).rounds == []  # nothing was trained yet
    train(study, planned.search)
    with pytest.raises(RunError, match=r"another search \(halving.keep: 0.33, not 0.5\); choose"):
        taken_up(study, changed)
    with pytest.raises(RunError, match=r"another search \(optim.name: adam, not sgd"):
        make_plan([Path("search.yaml")], ["optim.name=sgd"], Path("runs"), STAGES)
    train(study, planned.search)
    again = make_plan([study.root], [], Path("runs"), STAGES).studies[0]
    assert again.search == advance(study, planned.search)
    assert len(again.plans) == 5
    assert again.comparison is not None


def test_all_finalists_are_tested_and_compared(study: StudyPaths):
    record = searched(study, SearchRecord(settings=settings()))
    open_search(study, record)
    (plan,) = make_plan([Path("search.yaml")], [], Path("runs"), STAGES).plans
    assert plan.run == trial_run(study, record.finalists()[0])
    assert read_rung(plan.run) is None
    assert decide.reached(record, record.finalists()[0]) == [1, 3, 9]


def test_ranking_takes_the_first_of_equals_and_no_score_last(study: StudyPaths):
    assert ranked({0: 0.5, 1: None, 2: 0.7, 3: 0.7}, settings()) == [2, 3, 0, 1]
    by_loss = settings(SEARCH, "test.select_by=loss")
    assert ranked({0: 0.5, 1: None, 2: 0.7}, by_loss) == [0, 2, 1]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("[1, 3]", "[1, 10]", "halving.rungs: 10 is beyond train.epochs, which is 9; lower"),
        ("[1, 3]", "[3, 1]", r"sweep.halving: rungs must rise.*write rungs: \[1, 3\]"),
        ("0.33", "1.0", "sweep.halving.keep: must be less than 1; it is 1.0"),
        ("0.33", "0", "sweep.halving.keep: must be greater than 0"),
        ("high: 1.0e-1", "high: 1.0e-4", "sweep.space.optim.lr: low must be less than high"),
        ("[[], [{name: horizontal_flip}]]", "[[]]", "sweep.space.augment: has one value"),
        ("augment:", "data.image_size:", "space.data.image_size|data.image_size"),
        ("optim.lr:", "train.epochs:", "space.train.epochs: .*cannot be ranked"),
        ("optim.lr:", "optim.lrr:", "optim.lrr: unknown key"),
        ("tpe", "tp", '"tp" is unknown .did you mean "tpe"'),
        ("tpe", "random", "parallel is for method: tpe"),
        ("trials: 12", "trials: 1", "sweep.search.trials: must be greater than or equal to 2"),
        ("space:", "grid:", "sweep.grid.optim.lr: must be a list"),
    ],
)
def test_wrong_searches(study: StudyPaths, old: str, new: str, error: str):
    with pytest.raises(ConfigError, match=error):
        settings(SEARCH.replace(old, new, 1))


def test_a_space_with_too_few_points_is_refused(study: StudyPaths):
    few = SEARCH.replace("{low: 1.0e-4, high: 1.0e-1, log: true}", "[0.1, 0.2]")
    few = few.replace("{low: 4, high: 32, step: 4}", "[4, 8]")
    with pytest.raises(ConfigError, match="12: in space only 8 were found that are different"):
        searched(study, SearchRecord(settings=settings(few)))


def test_without_optuna_the_extra_is_named(study: StudyPaths, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'"optuna" is not installed.*\[search\]'):
        make_plan([Path("search.yaml")], [], Path("runs"), STAGES)
    assert not RunPaths(Path("runs")).root.exists()
