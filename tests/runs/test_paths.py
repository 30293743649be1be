"""Every file name of a run directory and of a shard folder."""

from pathlib import Path

from cardamage.runs.paths import RunPaths, ShardPaths


def test_files_of_a_run_are_those_of_the_contract():
    run = RunPaths(Path("runs/unet2"))
    assert [
        run.config,
        run.provenance,
        run.metrics,
        run.events,
        run.checkpoint(1),
        run.resume,
        run.test_table("test"),
        run.test_counts("test", 1),
        run.report,
        run.stage("train"),
        run.log("train"),
    ] == [
        Path("runs/unet2", name)
        for name in (
            "config.yaml",
            "provenance.json",
            "metrics.csv",
            "events.jsonl",
            "checkpoints/epoch-0001.safetensors",
            "resume",
            "test/test.csv",
            "test/test/epoch-0001.npz",
            "report",
            "stages/train.json",
            "logs/train.log",
        )
    ]


def test_files_of_a_shard_folder_are_those_of_the_contract():
    shards = ShardPaths(Path("shards/x"))
    assert shards.manifest == Path("shards/x/manifest.json")
    assert shards.shard("train", 0) == Path("shards/x/train/000000.tar")


def test_finished_checkpoints_are_found_by_epoch_and_sorted(tmp_path: Path):
    run = RunPaths(tmp_path)
    assert run.finished_checkpoints() == {}
    run.checkpoints.mkdir()
    for epoch in (10000, 2, 10):
        run.checkpoint(epoch).touch()
    for stray in (".epoch-0003.safetensors.host.1.part", "epoch-3.safetensors", "notes.txt"):
        (run.checkpoints / stray).touch()
    assert list(run.finished_checkpoints().items()) == [
        (epoch, run.checkpoint(epoch)) for epoch in (2, 10, 10000)
    ]


def test_a_run_beside_another_wherever_that_is_seen_from():
    found = {root: str(RunPaths(Path(root)).beside("e2").root) for root in ("runs/e5", "e5", ".")}
    assert found == {"runs/e5": "runs/e2", "e5": "e2", ".": "../e2"}
