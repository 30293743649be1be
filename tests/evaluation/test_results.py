"""Per-image test results: whole round trips, and damage said in one line."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from cardamage.data.drawing import layer_png
from cardamage.errors import RunError
from cardamage.evaluation.damages import Damages
from cardamage.evaluation.results import TestResult, read_result, write_result
from cardamage.labels import colour


@pytest.fixture
def result():
    return TestResult(
        epoch=3,
        weights_sha256="ab" * 32,
        fingerprint="0123456789abcdef",
        class_names=("background", "glass shatter", "beule ü"),
        keys=np.array(["000000", "000001"]),
        counts=np.arange(18, dtype=np.int64).reshape(2, 3, 3) * 2**40,
        loss=np.array([0.1 + 0.2, 1e-300]),
        map_samples=np.array([1], dtype=np.int64),
        maps=(layer_png(np.full((4, 5), 255, dtype=np.uint8)),),
        damages=Damages(
            counts=np.arange(72, dtype=np.int32).reshape(2, 3, 3, 4),
            presence=np.array([0.1, 1], np.float32),
            reliability=np.arange(60, dtype=np.int64).reshape(20, 3),
            disagreements=np.arange(18, dtype=np.float32).reshape(2, 9) / 7,
        ),
    )


def test_a_result_comes_back_to_the_last_bit(tmp_path, result):
    path = tmp_path / "test" / "epoch-0003.npz"
    write_result(path, result)
    found = read_result(path)
    pairs = [
        (getattr(before, field.name), getattr(after, field.name))
        for before, after in ((result, found), (result.damages, found.damages))
        for field in dataclasses.fields(before)
        if field.name != "damages"
    ]
    for before, after in pairs:
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(after, before)
            assert after.dtype == before.dtype
        else:
            assert after == before
            assert type(after) is type(before)


def test_a_result_without_maps_comes_back(tmp_path, result):
    bare = dataclasses.replace(result, map_samples=np.zeros(0, np.int64), maps=())
    write_result(tmp_path / "bare.npz", bare)
    assert read_result(tmp_path / "bare.npz").maps == ()


def test_results_of_before_damages_were_counted_are_read(tmp_path, result):
    ids = np.array([[[0, 1], [2, 0]]], np.uint8)
    fields = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(TestResult)
        if field.name not in ("damages", "maps", "flip")
    }
    np.savez_compressed(tmp_path / "old.npz", maps=ids, **fields)
    found = read_result(tmp_path / "old.npz")
    assert (found.damages, found.flip) == (None, False)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found.maps[0]))), ids[0])


def test_maps_are_small_and_show_only_what_is_predicted():
    ids = np.zeros((240, 240), np.uint8)
    ids[50:90, 60:200] = 3
    png = layer_png(ids)
    assert len(png) < 1000
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    assert np.array_equal(shown[..., 3] > 0, ids > 0)
    assert shown[60, 70].tolist() == [*colour(3), 255]


def test_nothing_stays_beside_a_written_result(tmp_path, result):
    write_result(tmp_path / "epoch-0001.npz", result)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0001.npz"]


def test_a_missing_result_names_the_remedy(tmp_path):
    with pytest.raises(RunError, match="does not exist; run the test stage"):
        read_result(tmp_path / "epoch-0001.npz")


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_cut_result_is_damage(tmp_path, result, kept):
    path = tmp_path / "epoch-0001.npz"
    write_result(path, result)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(RunError, match="is damaged"):
        read_result(path)


def test_a_flipped_byte_is_damage_or_harmless(tmp_path, result):
    path = tmp_path / "epoch-0001.npz"
    write_result(path, result)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            found = read_result(path)
        except RunError:
            continue
        # The byte was in a part of the archive that carries no data, such as a date.
        np.testing.assert_array_equal(found.counts, result.counts)


def test_a_file_of_one_array_is_damage(tmp_path):
    with (tmp_path / "one.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(RunError, match="is damaged"):
        read_result(tmp_path / "one.npz")


def test_a_file_of_other_arrays_is_damage(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(RunError, match="is damaged"):
        read_result(tmp_path / "other.npz")


def test_pickles_are_never_opened(tmp_path):
    np.savez(tmp_path / "evil.npz", epoch=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RunError, match="is damaged"):
        read_result(tmp_path / "evil.npz")
