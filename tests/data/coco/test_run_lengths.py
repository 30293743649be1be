"""COCO's compressed counts, against those of a second implementation, pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cardamage.data.coco.segmentation import SegmentationError, run_lengths


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=40).filter(any))
def test_what_pycocotools_compresses_is_read(runs):
    height, width = 1, sum(runs)
    packed = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    assert run_lengths(packed["counts"]).tolist() == runs


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 60), height=st.integers(1, 60))
def test_the_runs_of_a_mask_fill_it(seed, width, height):
    mask = np.random.default_rng(seed).integers(2, size=(height, width), dtype=np.uint8)
    runs = run_lengths(coco_mask.encode(np.asfortranarray(mask))["counts"])
    filled = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
    assert (filled == mask).all()


def test_no_counts_are_no_runs():
    assert run_lengths(b"").tolist() == []


@pytest.mark.parametrize(
    "counts", [b"/", b"p", b"\xff", b"a b", b"P", b"4P", b"PPPPPPPPP0", b"4" + b"o" * 9 + b"0"]
)
def test_what_is_no_counts_is_refused(counts):
    with pytest.raises(SegmentationError, match="counts"):
        run_lengths(counts)
