import numpy as np
import pytest
import torch

from cardamage.errors import ConfigError
from cardamage.training.failures import explain_out_of_memory


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(1 << 50),
        lambda: np.empty(1 << 55, np.uint8),
        lambda: bytearray(1 << 55),
    ],
    ids=["torch", "numpy", "python"],
)
def test_memory_that_is_not_there_is_one_line_with_the_remedy(allocate):
    with (
        pytest.raises(ConfigError, match=r"^out of memory \(.+\); lower it$") as error,
        explain_out_of_memory("lower it"),
    ):
        allocate()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be reported later",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_memory_of_a_gpu_that_torch_does_not_allocate_counts_as_well(text):
    one_line = pytest.raises(ConfigError, match=r"^out of memory \(CUDA error: .+\); lower it$")
    with one_line, explain_out_of_memory("lower it"):
        raise RuntimeError(text)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(5, "Input/output error")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised, explain_out_of_memory("lower it"):
        raise error
    assert raised.value is error
