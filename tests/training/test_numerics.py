import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from cardamage.errors import ConfigError
from cardamage.training.numerics import deterministic_algorithms, quicken_depthwise


def test_the_switch_holds_within_the_body_only():
    with deterministic_algorithms(enabled=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()


def test_off_it_changes_nothing():
    with deterministic_algorithms(enabled=False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_what_has_no_deterministic_algorithm_is_refused_in_one_line():
    values, places = functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    with (
        pytest.raises(ConfigError, match=r"train\.deterministic is true, but max_unpool") as error,
        deterministic_algorithms(enabled=True),
    ):
        functional.max_unpool2d(values, places, 2)
    assert "\n" not in str(error.value)
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_keep_their_traceback():
    with (
        pytest.raises(RuntimeError, match="must match"),
        deterministic_algorithms(enabled=True),
    ):
        _ = torch.ones(2) + torch.ones(3)


def test_depthwise_convolutions_compute_in_float32_beside_bfloat16():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    names = list(model.state_dict())
    bf16 = SimpleNamespace(device=torch.device("cpu"), mixed_precision="bf16")
    no = SimpleNamespace(device=torch.device("cpu"), mixed_precision="no")
    images = torch.rand(1, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert quicken_depthwise(model, no)[0](images).dtype == torch.bfloat16
        again = quicken_depthwise(quicken_depthwise(model, bf16), bf16)
        assert again[0](images).dtype == torch.float32
        assert again(images).dtype == torch.bfloat16
        assert copy.deepcopy(again)[0](images).dtype == torch.float32
    assert list(again.state_dict()) == names
