"""Learning rates by hand."""

import pytest
import torch

from cardamage.config.recipe import (
    ConstantSchedule,
    CosineSchedule,
    OneCycleSchedule,
    PolySchedule,
)
from cardamage.training.schedule import Schedule
from cardamage.training.steps import StepPlan


def schedule(settings, *, epochs=4, samples=10, batch_size=5, rates=(0.1,)):
    """Two steps per epoch, unless asked otherwise."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    optimizer = torch.optim.SGD(groups)
    plan = StepPlan(0, samples, batch_size, None, 0, 1)
    return Schedule(settings, optimizer, plan, epochs), optimizer


def test_a_constant_rate_is_the_optimisers_own_to_the_bit():
    found, optimizer = schedule(ConstantSchedule(), rates=(0.1, 3e-4))
    for step in range(8):
        found.set_rates(step)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 3e-4]


def test_half_a_cosine_falls_from_the_highest_rate_towards_zero():
    found, _ = schedule(CosineSchedule(name="cosine"), epochs=2)
    half = 2**0.5 / 2
    expected = [1, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert [found.factor(step) for step in range(4)] == pytest.approx(expected)
    assert found.rate(2) == pytest.approx(0.05)


def test_poly_falls_along_a_power_of_what_is_left():
    found, _ = schedule(PolySchedule(name="poly", power=2.0), epochs=2)
    assert [found.factor(step) for step in range(4)] == pytest.approx([1, 9 / 16, 1 / 4, 1 / 16])
    straight, _ = schedule(PolySchedule(name="poly", power=1.0), epochs=2)
    assert straight.rate(1) == pytest.approx(0.075)


def test_one_cycle_is_that_of_torch():
    found, optimizer = schedule(OneCycleSchedule(name="one_cycle", rise=0.5), epochs=10)  # 20 steps
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=21, pct_start=11 / 21)
    for step in range(20):
        assert found.rate(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_the_warm_up_rises_linearly_and_the_highest_rate_follows(name):
    kind = {"constant": ConstantSchedule, "cosine": CosineSchedule}[name]
    found, _ = schedule(kind(name=name, warmup_epochs=1.5), epochs=4)  # three steps of eight
    assert [found.factor(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1])
    assert found.factor(7) == pytest.approx(1 if name == "constant" else 0.0954915)


def test_every_group_keeps_its_share_of_the_rate():
    found, optimizer = schedule(CosineSchedule(name="cosine"), epochs=2, rates=(0.1, 0.01))
    found.set_rates(2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.005])


def test_a_step_has_the_same_rate_whatever_ran_before():
    found, optimizer = schedule(CosineSchedule(name="cosine"))
    found.set_rates(7)
    found.set_rates(3)
    again, untouched = schedule(CosineSchedule(name="cosine"))
    again.set_rates(3)
    assert optimizer.param_groups[0]["lr"] == untouched.param_groups[0]["lr"]
