"""The order in which gradients are added: settled before the first step of every start."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from cardamage.training.numerics import warm_up_ddp_buckets

PROGRAM = """
import copy, os
import torch
from cardamage.training.distributed import start_accelerator
from cardamage.models.segnet import segnet
from cardamage.training.numerics import warm_up_ddp_buckets

accelerator = start_accelerator("no")

def prepared(weights):
    torch.manual_seed(0)
    model = segnet("segnet2", 3, softmax=False)
    if weights:
        model.load_state_dict(weights)
    model = accelerator.prepare(model)
    warm_up_ddp_buckets(model, accelerator, (16, 16))  # without it, they differ
    return model

def step(model, number):
    torch.manual_seed(100 * number + accelerator.process_index)
    model.zero_grad()
    accelerator.backward(model(torch.rand(4, 3, 16, 16)).square().mean())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad

going_on = prepared(None)
step(going_on, 1)
saved = copy.deepcopy(going_on.module.state_dict())
step(going_on, 2)
resumed = prepared(saved)
step(resumed, 2)
pairs = zip(going_on.module.state_dict().values(), resumed.module.state_dict().values())
equal = all(torch.equal(a, b) for a, b in pairs)
if accelerator.is_main_process:
    os.write(1, f"equal: {equal}\\n".encode())
accelerator.end_training()
"""


@pytest.mark.distributed
def test_a_step_after_a_resumption_on_three_processes_adds_as_it_would_have(program, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    result = program.torchrun(3, tmp_path / "program.py")
    assert "equal: True" in result.stdout


def test_one_process_has_nothing_to_settle():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    warm_up_ddp_buckets(model, Accelerator(cpu=True), (4, 4))
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
