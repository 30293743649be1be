"""A run whose shards lie in object storage, as a person makes it: the same as on a disk."""

import csv
import sys

import pytest

from cardamage.errors import ConfigError
from cardamage.launch.planning.preflight import plan_checked
from cardamage.runs.paths import RunPaths
from tests.helpers.programs import Program
from tests.helpers.storage import BUCKET, ObjectStore

STAGES = ("pack", "train", "test", "report")


def scores(program: Program, name: str) -> list[dict[str, str]]:
    """The losses and scores of every epoch, without times."""
    with RunPaths(program.folder / "runs" / name).metrics.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if k.startswith(("train_", "val_"))} for row in rows]


@pytest.mark.slow
def test_a_run_on_storage_equals_one_on_a_disk(toy: Program, monkeypatch) -> None:
    cache = toy.folder / "disk of a node"
    on_storage = [
        "name=stored",
        "data.shards_dir=manifests",
        f"data.storage={{url: s3://{BUCKET}/shards, cache_gb: 0.00003, cache_dir: {cache}}}",
    ]
    with ObjectStore() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        for stage in STAGES:
            toy.succeeds(f"jobs/{stage}.py", "toy.yaml", *on_storage)
        names = store.names("shards/")
        toy.refuses(
            "jobs/pack.py",
            *("toy.yaml", "name=nowhere", "data.shards_dir=elsewhere"),
            "data.storage={url: s3://no-such-bucket/shards}",
        )
    for stage in STAGES[1:3]:
        toy.succeeds(f"jobs/{stage}.py", "toy.yaml")

    assert scores(toy, "stored") == scores(toy, "toy")
    one, other = (RunPaths(toy.folder / "runs" / name) for name in ("stored", "toy"))
    assert one.test_table("test").read_text() == other.test_table("test").read_text()
    assert "data:image" in (one.report / "index.html").read_text()
    tars = {name.partition("/")[2] for name in names if name.endswith(".tar")}
    kept = {f"{path.parent.name}/{path.name}" for path in cache.rglob("*.tar")}
    assert tars == {f"{split}/000000.tar" for split in ("train", "valid", "test")}
    assert kept < tars
    assert not [*(toy.folder / "manifests").rglob("*.tar")]


def test_what_reads_the_storage_is_asked_for_before_anything_starts(toy: Program, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for url, said in (
        (
            "gs://cars/shards",
            r"needs a package .*; for S3 run: pip install 'cardamage-runner\[s3\]",
        ),
        ("s4://cars/shards", "s4://cars/shards is unknown to fsspec"),
    ):
        with pytest.raises(ConfigError, match=said):
            plan_checked(
                [str(toy.folder / "toy.yaml")],
                [f"data.storage={{url: {url}}}"],
                toy.folder / "runs",
            )
