"""Training that begins with another run's weights, as a person runs it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from cardamage.config import loading
from cardamage.runs.paths import RunPaths
from cardamage.system.files import sha256_of

CONTINUE = ("name=second", "continue_from={run: toy, checkpoint: 1}", "train.epochs=1")
STILL = "optim={name: sgd, lr: 1e-30}"  # moves no weight; running statistics move all the same


@pytest.fixture
def trained(toy):
    toy.succeeds("jobs/train.py", "toy.yaml")
    return toy


def test_it_begins_with_those_weights_and_says_so(trained):
    first, second = (RunPaths(trained.folder / "runs" / name) for name in ("toy", "second"))
    trained.succeeds("jobs/pack.py", "toy.yaml", *CONTINUE, STILL)
    shown = trained.inside("jobs/train.py", "toy.yaml", *CONTINUE, STILL)
    assert shown.returncode == 0, shown.stderr
    before, after = load_file(first.checkpoint(1)), load_file(second.checkpoint(1))
    learned = [name for name in before if name.endswith(("weight", "bias"))]
    assert all(torch.equal(before[name], after[name]) for name in learned)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    last = load_file(first.checkpoint(2))
    assert not torch.equal(after[learned[0]], last[learned[0]])

    origin = json.loads(second.continued_from.read_text())
    digest, theirs = sha256_of(first.checkpoint(1)), loading.load(first.config).hash()
    assert (origin["run"], origin["epoch"]) == ("runs/toy", 1)
    assert (origin["weights_sha256"], origin["config_hash"]) == (digest, theirs)

    # Once begun, the run goes on from its own state, whatever becomes of the other.
    first.checkpoint(1).unlink()
    trained.succeeds("jobs/train.py", "toy.yaml", *CONTINUE[:2], STILL, "train.epochs=2")
    assert json.loads(second.continued_from.read_text()) == origin
    trained.succeeds("jobs/test.py", second.root)
    trained.succeeds("jobs/report.py", second.root)
    page = (second.report / "index.html").read_text()
    assert "<dt>Continues</dt><dd>toy@1</dd>" in page
    assert digest in page

    # What a run continues is part of what it is.
    line = trained.refuses("jobs/train.py", "toy.yaml", "name=second", STILL, "train.epochs=2")
    assert "holds a run of another config (continue_from" in line


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["continue_from.run=gone"], "continues runs/gone, which is no run directory"),
        (["continue_from.checkpoint=3"], "3 lies behind the last epoch of runs/toy, which is 2"),
        (["model={name: segnet3}"], "continues runs/toy, whose model is segnet2, not segnet3"),
    ],
)
def test_sources_that_cannot_serve(trained, overrides, error):
    trained.succeeds("jobs/pack.py", "toy.yaml", *CONTINUE, *overrides)
    line = trained.refuses("jobs/train.py", "toy.yaml", *CONTINUE, *overrides)
    assert error in line
    second = RunPaths(trained.folder / "runs" / "second")
    assert not second.checkpoints.exists()
    assert not second.continued_from.exists()
