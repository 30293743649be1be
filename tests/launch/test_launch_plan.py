from pathlib import Path

import pytest

from cardamage.errors import ConfigError, RunError
from launch.plan import choose_stages, make_plans


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
    (plan,) = make_plans([fake.config("one")], ["seed=3"], Path("runs"), ("pack", "train", "test"))
    assert [(job.stage, job.needs) for job in plan.jobs] == [
        ("pack", ()),
        ("train", ("pack",)),
        ("test", ("train",)),
    ]
    assert [Path(job.script[0]).name for job in plan.jobs] == ["pack.py", "train.py", "test.py"]
    assert all(job.script[1:] == ("runs/one",) for job in plan.jobs)
    assert plan.experiment.seed == 3


def test_run_directory_stands_for_its_config(fake):
    run = fake.make()
    (plan,) = make_plans([run.root], [], Path("ignored"), ("pack",))
    assert plan.run == run


def test_two_configs_of_one_run_are_refused(fake):
    run = fake.make()
    configs = [fake.config("fake"), run.root]
    with pytest.raises(ConfigError, match=r"fake.yaml and .* are both the run .*another name"):
        make_plans(configs, [], run.root.parent, ("pack",))


def test_run_of_another_config_is_refused(fake):
    run = fake.make()
    with pytest.raises(RunError, match=r"holds a run of another config \(seed: 0, not 1\)"):
        make_plans([fake.config("fake")], ["seed=1"], run.root.parent, ("pack",))
