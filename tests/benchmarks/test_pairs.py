"""Verdicts of benchmarks, and the table made of results."""

import json
from dataclasses import asdict

import pytest

from benchmarks import pairs, run


def result(values: list[float], *, sign: str = ">=", unit: str = "x", load: float = 0.0):
    return pairs.Result(
        claim="loader",
        against="another",
        sign=sign,
        bar=2.0,
        unit=unit,
        values=values,
        ours=300.0,
        other=100.0,
        measured_in="samples/s",
        note="",
        machine="a machine; Python",
        load=load,
        cores=2,
    )


@pytest.mark.parametrize(
    ("values", "sign", "verdict"),
    [
        ([2.1, 2.5, 3.0], ">=", "met"),
        ([1.1, 1.5, 1.9], ">=", "missed"),
        ([1.1, 1.5, 1.9], "<=", "met"),
        ([1.1, 2.5, 3.0], ">=", "too noisy to claim"),
        ([1.95, 2.01, 2.02], ">=", "met"),  # across the bar, but close together
        ([1.95, 1.99, 2.02], ">=", "missed"),
    ],
)
def test_the_median_counts_unless_the_spread_is_wide(values, sign, verdict):
    assert result(values, sign=sign).verdict == verdict


def test_seconds_of_a_busy_machine_claim_nothing():
    assert result([1.0], sign="<=", unit="s", load=9).verdict == "machine too busy to claim"
    assert result([1.0], sign="<=", unit="x", load=9).verdict == "met"


def test_pairs_take_turns_in_changing_order():
    asked = []
    told = pairs.compare(
        "a",
        "b",
        ">= 1",
        lambda: asked.append("ours") or 6.0,
        lambda: asked.append("other") or 3.0,
        measured_in="x/s",
        pairs=2,
    )
    assert asked == ["ours", "other", "other", "ours"]
    assert told.values == [2.0, 2.0]
    assert told.verdict == "met"


def test_a_new_result_takes_the_place_of_the_old_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(run, "README", tmp_path / "README.md")
    run.README.write_text(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n")
    for values in ([1.0], [3.0]):
        run.keep("loading", [json.dumps(asdict(result(values)))])
    run.write_table()
    page = run.README.read_text()
    assert page.startswith("before")
    assert page.endswith("after\n")
    assert "old" not in page
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert len(rows) == 1
    assert "| 3x |" in rows[0]
    assert "| met |" in rows[0]
