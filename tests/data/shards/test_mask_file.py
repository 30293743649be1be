"""Masks as files: PNG for everybody, and quick for ourselves."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cardamage.data.shards.mask_file import decode_mask, encode_mask

masks = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda shape: arrays(np.uint8, shape)
)


@given(masks)
def test_every_reader_of_png_sees_the_class_ids(mask):
    content = encode_mask(mask)
    with Image.open(io.BytesIO(content)) as image:
        image.load()  # Pillow checks the checksums
        assert (image.format, image.mode) == ("PNG", "L")
        assert (np.asarray(image) == mask).all()
    assert (decode_mask(content, mask.shape) == mask).all()


def test_other_files_are_left_to_others():
    mask = (np.arange(48, dtype=np.uint8) * 5).reshape(6, 8)
    content = encode_mask(mask)
    assert decode_mask(content, (8, 6)) is None
    assert decode_mask(b"", (6, 8)) is None
    for kind in ("PNG", "JPEG"):
        stream = io.BytesIO()
        Image.fromarray(mask).save(stream, kind)
        assert decode_mask(stream.getvalue(), (6, 8)) is None  # this PNG has predicted rows


@pytest.mark.parametrize("cut", [10, 33, 40, 45, 60])
def test_what_is_cut_short_is_none(cut):
    assert decode_mask(encode_mask(np.eye(30, dtype=np.uint8))[:cut], (30, 30)) is None


def test_no_more_is_unpacked_than_the_mask_has():
    small, large = (encode_mask(np.zeros(size, dtype=np.uint8)) for size in ((4, 4), (4000, 4000)))
    head, body = small[:33], large[33:]  # 4 by 4 pixels, it says
    assert len(zlib.decompress(body[8:-16])) > 16_000_000
    assert (decode_mask(head + body, (4, 4)) == 0).all()
