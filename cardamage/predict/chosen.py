"""The model that a word of a command line means: a run's, a checkpoint's or an exported one."""

from pathlib import Path
from typing import NamedTuple

from cardamage.config.experiment import Experiment
from cardamage.predict.hub import fetch, is_repository
from cardamage.predict.model import TrainedModel
from cardamage.predict.onnx_model import OnnxModel
from cardamage.runs.checkpoints import choose_checkpoint, rule
from cardamage.runs.directory import resolve
from cardamage.runs.lookup import find_run
from cardamage.runs.paths import RunPaths


class Chosen(NamedTuple):
    """A model, and where it comes from."""

    model: TrainedModel
    file: Path
    """The checkpoint or the exported network."""
    name: str
    """The run's name; the path of a file that was given by itself."""
    rule: str = ""
    """By which rule the checkpoint was chosen, in words; empty where it was named."""
    experiment: Experiment | None = None
    run: RunPaths | None = None


def choose_model(
    word: str, checkpoint: str, runs_dir: Path, *, device: str | None = None
) -> Chosen:
    """The model of a run, a ``.safetensors`` checkpoint, an exported ``.onnx`` file, or the Hub's.

    Args:
        checkpoint: of a run: ``best``, ``last`` or an epoch.
        device: where it computes; the GPU where there is one when None.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    file = fetch(word) if is_repository(word) else Path(word)
    if file.suffix == ".onnx":
        return Chosen(OnnxModel.open(file), file, word)
    if file.suffix == ".safetensors":
        return Chosen(TrainedModel.load(file, device), file, word)
    experiment, run = resolve(find_run(word, runs_dir).root)
    select_by = experiment.test.select_by
    _, file = choose_checkpoint(run, checkpoint, select_by)
    model = TrainedModel.load(file, device, of=experiment)
    chosen_by = rule(select_by) if checkpoint == "best" else ""
    return Chosen(model, file, experiment.name, chosen_by, experiment, run)
