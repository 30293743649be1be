"""The smallest real run, through the real entry points, with nothing replaced."""

import csv
import json
import subprocess
import sys

import pytest

FILES_OF_A_RUN = {
    "config.yaml",
    "provenance.json",
    "metrics.csv",
    "events.jsonl",
    "launch.json",
    "checkpoints/epoch-0001.safetensors",
    "checkpoints/epoch-0002.safetensors",
    "resume/progress.json",
    "resume/state-00000003.pt",
    "resume/state-00000006.pt",
    "test/test.csv",
    "test/test/epoch-0001.npz",
    "test/test/epoch-0002.npz",
    "report/index.html",
    "report/summary.md",
    *(f"stages/{stage}.json" for stage in ("pack", "train", "test", "report")),
    *(f"logs/{stage}.log" for stage in ("pack", "train", "test", "report")),
}


@pytest.mark.slow
def test_one_command_leads_from_a_config_to_a_report_and_another_trains_on(toy):
    # Not packed by the fixture: a run of its own.
    result = toy("launch/submit.py", "toy.yaml", "name=whole", "--cluster", "local")
    assert result.returncode == 0, result.stderr
    run = toy.folder / "runs" / "whole"
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files >= FILES_OF_A_RUN
    assert not [name for name in files if name.endswith(".part")]
    assert "runs/whole/report/index.html" in result.stdout + result.stderr

    status = json.loads(toy.succeeds("launch/status.py", "whole", "--json"))
    states = [stage["state"] for stage in status[0]["stages"].values()]
    assert states == ["done"] * 4

    # The report names a command to predict with; it works as it stands there.
    summary = (run / "report" / "summary.md").read_text()
    assert "cardamage predict" in summary

    # `accelerate launch` on the same config, with more epochs, takes the run up.
    before = (run / "checkpoints" / "epoch-0002.safetensors").stat().st_mtime_ns
    command = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu"]
    subprocess.run(
        [
            sys.executable,
            *command,
            str(toy.script("jobs/train.py")),
            "toy.yaml",
            "name=whole",
            "train.epochs=3",
        ],
        cwd=toy.folder,
        env=toy.environment,
        check=True,
        capture_output=True,
        timeout=300,
    )
    with (run / "metrics.csv").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2", "3"]
    assert (run / "checkpoints" / "epoch-0002.safetensors").stat().st_mtime_ns == before

    # Submitted again, it tests only the new checkpoint.
    old = (run / "test" / "test" / "epoch-0001.npz").stat().st_mtime_ns
    toy.succeeds("launch/submit.py", "toy.yaml", "name=whole", "train.epochs=3")
    assert (run / "test" / "test" / "epoch-0001.npz").stat().st_mtime_ns == old
    with (run / "test" / "test.csv").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2", "3"]


SWEEP = """\
name: rates
sweep: {config: toy.yaml, grid: {optim.lr: [1e-3, 1e-2]}, overrides: {train.epochs: 1}}
"""


@pytest.mark.slow
def test_a_sweep_is_one_command_and_the_same_again_runs_what_is_missing(toy):
    (toy.folder / "sweep.yaml").write_text(SWEEP)
    printed = toy.succeeds("launch/submit.py", "sweep.yaml").splitlines()
    pages = [f"report: runs/rates{of}/report/index.html" for of in ("-lr_0.001", "-lr_0.01", "")]
    assert printed == ["rates: 2 runs", *pages]
    runs = toy.folder / "runs"
    summary = (runs / "rates/report/summary.md").read_text()
    assert "rates-lr\\_0.001" in summary
    assert "rates-lr\\_0.01" in summary

    # Nothing is missing.
    page = "runs/rates/report/index.html"
    again = toy.succeeds("launch/submit.py", "sweep.yaml")
    assert again == f"rates: all 2 runs are complete; {page}\n"

    # One run lost a test: it alone is tested again, and then compared.
    other = (runs / "rates-lr_0.01/stages/report.json").stat().st_mtime_ns
    compared = (runs / page.removeprefix("runs/")).stat().st_mtime_ns
    (runs / "rates-lr_0.001/stages/test.json").unlink()
    assert toy.succeeds("launch/submit.py", "runs/rates").splitlines() == [
        "rates: 1 of 2 runs are complete; to do: rates-lr_0.001",
        pages[0],
        pages[2],
    ]
    assert (runs / "rates-lr_0.01/stages/report.json").stat().st_mtime_ns == other
    assert (runs / page.removeprefix("runs/")).stat().st_mtime_ns > compared
