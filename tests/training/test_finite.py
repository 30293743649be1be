from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cardamage.config import loading
from cardamage.errors import CardamageError
from cardamage.runs.paths import RunPaths
from cardamage.training.finite import FiniteCheck
from cardamage.training.steps import StepPlan


@pytest.fixture
def check(tmp_path):
    values = {
        "name": "wild",
        "data": {"source": "synthetic", "classes": ["dent"]},
        "model": {"name": "unet2"},
        "optim": {"name": "sgd", "lr": 0.5},
    }
    plan = StepPlan(seed=0, samples=8, batch_size=4, micro_batch_size=None, process=0, processes=1)
    reader = SimpleNamespace(
        keys=np.array([f"{i:08d}" for i in range(8)]),
        info=lambda sample: {"file_name": f"car {sample}.jpg"},
    )
    return FiniteCheck(RunPaths(tmp_path / "wild"), loading.parse(values), plan, reader)


def rows(loss: list[float]) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(loss), "positions": torch.arange(len(loss))}


def test_finite_losses_pass(check):
    check.losses(rows([0.5, 2.0, 0.0]))


def test_the_first_step_with_a_loss_that_is_no_number_is_named(check):
    with pytest.raises(
        CardamageError, match=r"became nan in step 2, for 1 of its 4 images: car \d"
    ):
        check.losses(rows([0.5] * 5 + [float("nan"), 0.5, 0.5]))


def test_without_an_epoch_the_remedy_is_another_run(check):
    with pytest.raises(CardamageError, match=r"lower optim.lr, which is 0.5, and start a new run$"):
        check.losses(rows([float("inf")]))


def test_after_an_epoch_the_remedy_goes_on_from_it(check):
    check.run.checkpoints.mkdir(parents=True)
    for epoch in (1, 2):
        check.run.checkpoint(epoch).touch()
    with pytest.raises(CardamageError, match=r"run=wild continue_from.checkpoint=2$"):
        check.losses(rows([float("inf")]))
