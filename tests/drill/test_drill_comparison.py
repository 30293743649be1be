"""What the drill compares, and what it says of differences."""

from pathlib import Path

import pytest

from benchmarks.drill.comparison import difference, parts, results
from cardamage.runs.paths import RunPaths

FILES = {
    "pack": {"shards/a-1/train/000000.tar", "shards/a-1/manifest.json", "shards/sources/b/c.jpg"},
    "train": {"runs/toy/metrics.csv", "runs/toy/checkpoints/epoch-0001.safetensors"},
    "test": {"runs/toy/test/valid.csv", "runs/toy/test/valid/epoch-0001.npz"},
}
NOT_COMPARED = {
    "shards/sources/.b.host.1.part/c.jpg",
    "shards/a-1/train/.000000.tar.host.1.part",
    "runs/toy/checkpoints/.epoch-0002.safetensors.host.12.part",
    "runs/toy/config.yaml",
    "runs/toy/stages/train.json",
    "runs/toy/resume/state.pt",
    "runs/toy/logs/train.log",
    "runs/toy/test/test.csv",  # of a split that is not the one tested on
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in [*NOT_COMPARED, *set().union(*FILES.values())]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def of(root: Path, stage: str) -> dict[str, str]:
    return dict(results(root, RunPaths(root / "runs" / "toy"), root / "shards", stage, "valid"))


@pytest.mark.parametrize("stage", FILES)
def test_results_are_the_published_files_of_a_stage(root: Path, stage: str):
    assert set(of(root, stage)) == FILES[stage]


def test_a_flipped_bit_a_missing_and_an_extra_file_are_differences(root: Path):
    expected = of(root, "train")
    assert difference(of(root, "train"), expected) is None

    weights = root / "runs/toy/checkpoints/epoch-0001.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    name = "runs/toy/checkpoints/epoch-0001.safetensors"
    assert difference(of(root, "train"), expected) == f"{name} differs"

    (root / "runs/toy/metrics.csv").unlink()
    assert difference(of(root, "train"), expected) == f"{name} differs (and 1 more)"

    weights.write_bytes(content)
    assert difference(of(root, "train"), expected) == "runs/toy/metrics.csv is missing"

    (root / "runs/toy/metrics.csv").write_text("runs/toy/metrics.csv")
    (weights.parent / "epoch-0002.safetensors").write_text("")
    second = "runs/toy/checkpoints/epoch-0002.safetensors"
    assert difference(of(root, "train"), expected) == f"{second} should not be there"


def test_half_written_files_and_folders_are_found(root: Path):
    assert parts(root) == {
        root / "shards/sources/.b.host.1.part",
        root / "shards/a-1/train/.000000.tar.host.1.part",
        root / "runs/toy/checkpoints/.epoch-0002.safetensors.host.12.part",
    }
