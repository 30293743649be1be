"""Tables: what is written is read back to the last bit, and damage is said."""

import math

import pytest

from cardamage.errors import RunError
from cardamage.runs.tables import read_table, write_table


def test_values_come_back_as_they_went_in(tmp_path):
    path = tmp_path / "scores.csv"
    rows = [
        {"epoch": 1, "checkpoint": "epoch-0001.safetensors", "dice": 0.1 + 0.2, "iou[a, b]": 1e-17},
        {"epoch": 2, "checkpoint": 'odd "name", with comma', "dice": 1.0, "iou[a, b]": 1 / 3},
    ]
    write_table(path, rows)
    assert read_table(path) == rows
    assert [type(value) for value in read_table(path)[0].values()] == [int, str, float, float]


def test_columns_keep_the_order_of_the_first_row(tmp_path):
    path = tmp_path / "scores.csv"
    write_table(path, [{"b": 1, "a": 2}, {"a": 3, "b": 4}])
    assert path.read_text() == "b,a\n1,2\n4,3\n"


def test_nan_is_an_empty_field(tmp_path):
    path = tmp_path / "scores.csv"
    write_table(path, [{"epoch": 1, "dice": math.nan}])
    assert path.read_text() == "epoch,dice\n1,\n"
    assert math.isnan(read_table(path)[0]["dice"])


def test_a_table_without_rows_reads_as_none(tmp_path):
    path = tmp_path / "scores.csv"
    write_table(path, [])
    assert read_table(path) == []


def test_a_missing_table_names_the_remedy(tmp_path):
    with pytest.raises(RunError, match="does not exist; run the stage that writes it"):
        read_table(tmp_path / "metrics.csv")


@pytest.mark.parametrize("text", ["epoch,dice\n1\n", "epoch,dice\n1,0.5,0.7\n"])
def test_a_row_of_another_length_is_damage(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(RunError, match="damaged"):
        read_table(path)


def test_a_table_that_is_no_text_is_damage(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"epoch\n\xff\xfe\n")
    with pytest.raises(RunError, match="cannot be read"):
        read_table(path)


def test_a_failed_write_leaves_the_old_table(tmp_path):
    path = tmp_path / "scores.csv"
    write_table(path, [{"epoch": 1}])
    with pytest.raises(ValueError, match="surprise"):
        write_table(path, [{"epoch": 1}, {"epoch": 2, "surprise": 3}])
    assert read_table(path) == [{"epoch": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]
