"""The remedy that a message names is followed, and works."""

from pathlib import Path

from cardamage.evaluation.results import read_result
from cardamage.runs.paths import RunPaths
from tests.helpers.children import Nursery
from tests.helpers.stage_results import ends_the_same, run_stages, target


def test_a_shard_with_a_flipped_bit(nursery: Nursery, at, undisturbed: Path) -> None:
    folder = at("train")
    (shard,) = folder.glob("shards/*/train/000000.tar")
    content = bytearray(shard.read_bytes())
    content[700] ^= 1  # in the image of the first sample
    shard.write_bytes(content)
    child = nursery.run(folder, "jobs/train.py", target("train"))
    assert child.wait() == 2, child.printed
    assert "train/000000.tar: sample 00000000 has other bytes in its image" in child.error
    remedy = child.error.rpartition("pack again: cardamage ")[2].replace("CONFIG", target("pack"))
    command, *arguments = remedy.split()
    assert nursery.run(folder, f"jobs/{command}.py", *arguments).wait() == 0
    assert ends_the_same(nursery, folder, undisturbed, "train")


def test_a_checkpoint_that_is_damaged_and_then_deleted(nursery: Nursery, at) -> None:
    folder = at("test")
    run = RunPaths(folder / "runs/cars")
    path = run.checkpoint(1)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    child = nursery.run(folder, "jobs/test.py", target("test"))
    assert child.wait() == 2, child.printed
    assert "epoch-0001.safetensors is damaged" in child.error
    assert "delete it to continue without that epoch" in child.error
    path.unlink()
    run_stages(nursery, folder, "test", "report")
    assert [row.split(",")[0] for row in run.test_table("test").read_text().split()[1:]] == ["2"]


def test_more_overlays_are_drawn_when_asked_for_later(nursery: Nursery, at) -> None:
    folder = at("report")
    result = RunPaths(folder / "runs/cars").test_counts("valid", 1)
    drawn, written = [], []
    for overlays in (1, 3, 2):
        asked = ("test.split=valid", f"test.overlays={overlays}")
        child = nursery.run(folder, "jobs/test.py", target("test"), *asked)
        assert child.wait() == 0, child.printed
        drawn.append(len(read_result(result).map_samples))
        written.append(result.stat().st_mtime_ns)
    assert drawn == [1, 3, 3]
    assert written[1] == written[2]  # more than asked for is enough
