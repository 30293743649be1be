"""``jobs/pack.py`` as a person runs it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cardamage.config.loading import load
from cardamage.data.shards.manifest import read_manifest
from cardamage.data.shards.reader import ShardReader
from cardamage.runs.directory import open_run
from cardamage.runs.paths import RunPaths, ShardPaths
from cardamage.runs.stages import read_stage
from tests.helpers.programs import ROOT, Program
from tests.helpers.small_export import SIZES, write_export

CONFIG = """
name: cars
data: {source: cars, classes: [scratch, dent], image_size: [16, 24]}
model: {name: segnet2}
optim: {name: adam}
train: {batch_size: 4}
"""


@pytest.fixture
def config(program: Program) -> Path:
    write_export(program.folder / "cars")
    path = program.folder / "cars.yaml"
    path.write_text(CONFIG)
    return path


def test_packs_marks_and_prints_the_folder(program: Program, config: Path) -> None:
    printed = program.succeeds("jobs/pack.py", config).splitlines()
    folder = program.folder / printed[-1]
    run = RunPaths(program.folder / "runs" / "cars")
    record = read_stage(run, "pack")
    assert record.state == "done"
    assert record.output == {"shards": str(folder), "splits": ["train", "valid", "test"]}
    assert load(run.config).name == "cars"
    with ShardReader(folder, "train") as reader:
        assert len(reader) == SIZES["train"]
    assert program.succeeds("jobs/pack.py", run.root).splitlines()[-1] == printed[-1]
    assert read_stage(run, "pack") == record


def test_a_synthetic_source_is_drawn_first(program: Program, config: Path) -> None:
    printed = program.succeeds(
        "jobs/pack.py",
        config,
        "data.source=synthetic",
        "data.classes=[scratch, dent, broken lamp]",
        "data.synthetic={images: 12, size: 48}",
        "data.image_size=[48, 48]",
        "data.shards_dir=packed here",
    )
    folder = program.folder / printed.splitlines()[-1]
    splits = read_manifest(ShardPaths(folder)).splits
    assert sum(split.samples for split in splits.values()) == 12
    assert folder.parent == program.folder / "packed here"


@pytest.fixture
def others(program: Program, config: Path) -> list[RunPaths]:
    """Two more runs of the same dataset; the batch of the second is too large for it."""
    runs = []
    for name, override in (("more", "seed=1"), ("wrong", "train.batch_size=99")):
        run = RunPaths(program.folder / "runs" / name)
        with contextlib.chdir(program.folder):
            open_run(run, load(config, [f"name={name}", override]))
        runs.append(run)
    return runs


def test_other_runs_that_pack_alike_get_the_same_shards(
    program: Program, config: Path, others: list[RunPaths]
) -> None:
    program.succeeds("jobs/pack.py", config, "--also", *(run.root for run in others))
    first = read_stage(RunPaths(program.folder / "runs" / "cars"), "pack")
    for run in others:  # a batch that is too large is its own run's mistake: training refuses it
        assert read_stage(run, "pack") == first
    assert len(list((program.folder / "shards").glob("cars-*"))) == 1


def test_what_fails_fails_for_all_that_share_it(
    program: Program, config: Path, others: list[RunPaths]
) -> None:
    (program.folder / "cars" / "test" / "photo 001.v1.jpg").write_bytes(b"\xff\xd8\xff")
    program.refuses("jobs/pack.py", config, "--also", others[0].root)
    record = read_stage(others[0], "pack")
    assert (record.state, record.error_class) == ("failed", "user")
    assert "cannot be decoded" in str(record.error)


def test_a_run_that_packs_otherwise_is_refused(
    program: Program, config: Path, others: list[RunPaths]
) -> None:
    said = program.refuses("jobs/pack.py", config, "data.subset=0.5", "--also", others[0].root)
    assert "packs otherwise (data.subset: 1.0, not 0.5); pack it by itself" in said
    assert read_stage(others[0], "pack").state == "waiting"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=8", "train.batch_size is 8, but the train split has 7 images; set"),
        ("data.source=nowhere", "nowhere does not exist"),
        ("data.classes=[scratch]", 'neither data.classes nor data.drop names: ["dent"]'),
        ("data.classes=[scratch, dent, rust]", 'data.classes names "rust", which the dataset'),
        ("data.shards_dir=cars.yaml", "cannot be written"),
    ],
)
def test_refusals(program: Program, config: Path, override: str, message: str) -> None:
    assert message in program.refuses("jobs/pack.py", config, override)
    assert not (program.folder / "shards").exists()
    record = read_stage(RunPaths(program.folder / "runs" / "cars"), "pack")
    assert (record.state, record.exit_status, record.error_class) == ("failed", 2, "user")
    assert message in str(record.error)


def test_an_empty_split(program: Program, config: Path) -> None:
    path = program.folder / "cars" / "valid" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": [], "annotations": []}))
    assert "valid: the split has no images" in program.refuses("jobs/pack.py", config)
    assert not (program.folder / "shards").exists()


def test_a_broken_jpeg(program: Program, config: Path) -> None:
    (program.folder / "cars" / "test" / "photo 001.v1.jpg").write_bytes(b"\xff\xd8\xff")
    assert "cars: test/photo 001.v1.jpg cannot be decoded" in program.refuses(
        "jobs/pack.py", config
    )
    assert list((program.folder / "shards").iterdir()) == []


def test_no_workers(program: Program, config: Path) -> None:
    line = program.refuses("jobs/pack.py", config, "--workers", 0)
    assert line == "error: --workers 0: at least one process has to pack"
    assert not (program.folder / "runs").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_stopped_halfway_it_goes_on(program: Program, how: signal.Signals) -> None:
    sizes = {"train": 90, "valid": 2, "test": 2}  # 64 and 26: the second is whole first
    write_export(program.folder / "cars", sizes=sizes)
    config = program.folder / "cars.yaml"
    # Large enough that it is still packing when the first shard is there.
    config.write_text(CONFIG.replace("[16, 24]", "[448, 448]"))
    process = subprocess.Popen(
        [sys.executable, ROOT / "jobs/pack.py", config, "--workers", "2"],
        cwd=program.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    first = wait_for_shard(program.folder / "shards")
    if how in (signal.SIGINT, signal.SIGUSR2):
        os.killpg(process.pid, how)  # as a terminal and SLURM do: to the workers too
    else:
        process.send_signal(how)
    _, printed = process.communicate(timeout=180)  # and the workers let go of the pipes
    assert process.returncode == (75 if how != signal.SIGKILL else -how), printed
    assert "Traceback" not in printed
    folder = first.parents[1]
    assert not (folder / "manifest.json").exists()
    run = RunPaths(program.folder / "runs" / "cars")
    if how != signal.SIGKILL:
        assert printed.splitlines()[-1].startswith("stopped: ")
        assert list(folder.rglob("*.part")) == []
        assert read_stage(run, "pack").state == "stopped"
    packed_at = first.stat().st_mtime_ns
    program.succeeds("jobs/pack.py", config)
    assert first.stat().st_mtime_ns == packed_at
    assert list(folder.rglob("*.part")) == []
    for split, count in sizes.items():
        with ShardReader(folder, split) as reader:
            assert len(reader) == count


def wait_for_shard(folder: Path, timeout_s: float = 60) -> Path:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := list(folder.glob("*/train/??????.tar")):
            return found[0]
        time.sleep(0.01)
    raise TimeoutError
