import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardamage.data.shards.order import batch_at
from cardamage.errors import ConfigError
from cardamage.training.steps import StepPlan


def plan(**changes):
    settings = {
        "seed": 0,
        "samples": 20,
        "batch_size": 8,
        "micro_batch_size": None,
        "process": 0,
        "processes": 1,
    }
    return StepPlan(**{**settings, **changes})


@given(
    batch_size=st.integers(6, 40),
    micro=st.none() | st.integers(1, 12),
    processes=st.sampled_from([1, 2, 3, 4, 6]),
    step=st.integers(0, 30),
    weights=st.sampled_from([None, (*[1.0] * 30, *[7.5] * 11)]),
)
def test_processes_read_the_global_batch_in_order_each_sample_once(
    batch_size, micro, processes, step, weights
):
    read, sizes = [], []
    for process in range(processes):
        mine = plan(
            samples=41,
            batch_size=batch_size,
            micro_batch_size=micro,
            process=process,
            processes=processes,
            weights=weights,
        )
        for samples, _ in mine.requests(step, step + 1):
            read.append(samples)
            sizes.append(len(samples))
    expected, _ = batch_at(0, 41, batch_size, step, weights)
    assert np.array_equal(np.concatenate(read), expected)
    assert max(sizes) <= (micro or batch_size)
    assert min(sizes) == mine.smallest_micro_batch
    assert min(sizes) >= 1


def test_a_share_is_cut_into_micro_batches_alike_in_size():
    assert plan(batch_size=16, micro_batch_size=5).micro_batches == [
        slice(0, 4),
        slice(4, 8),
        slice(8, 12),
        slice(12, 16),
    ]


def test_an_epoch_ends_with_the_first_step_that_reaches_its_last_position():
    assert [plan().steps_until(epoch) for epoch in range(4)] == [0, 3, 5, 8]


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(ConfigError, match=r"train\.batch_size is 21.*20 images; lower it to 20"):
        plan(batch_size=21)


def test_more_processes_than_images_in_a_batch_are_refused():
    with pytest.raises(ConfigError, match="too few for 9 processes"):
        plan(processes=9)
