import pytest
import torch
from torch.nn import functional

from cardamage.errors import ConfigError
from cardamage.training.determinism import deterministic_algorithms


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
