"""Networks that a package brings, and pretrained weights: checked and fetched at submission.

Asking a network takes torch, so another process does it, once for each kind of network.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from cardamage.config.experiment import Experiment
from cardamage.config.recipe import SmpModel
from cardamage.errors import ConfigError
from cardamage.launch.planning.graph import RunPlan
from cardamage.runs.continued import has_begun, weights_file
from cardamage.runs.paths import RunPaths, weights_folder
from cardamage.system.files import write_json

_PACKAGES = ("segmentation-models-pytorch", "timm", "torch", "torchvision")


def prepare_networks(plans: Iterable[RunPlan], *, fetch: bool) -> None:
    """Refuse networks that cannot be built or begun with, and see that ImageNet weights are there.

    Args:
        fetch: fetch them where they are missing, and remember what was checked.

    Raises:
        ConfigError: a network cannot be built, or its weights do not fit or cannot be fetched.
        RunError: the run that weights are taken from is not trained.
    """
    questions: dict[Path, dict[str, Any]] = {}
    for plan in plans:
        if "train" in plan.stages and not has_begun(plan.run):
            weights = plan.experiment.weights
            if weights == "none" and not isinstance(plan.experiment.model, SmpModel):
                continue
            marker, question = _question(plan.experiment, plan.run, fetch=fetch)
            if not _is_answered(marker):
                questions[marker] = question
    if not questions:
        return
    answer = subprocess.run(
        [sys.executable, "-m", "cardamage.models.prepare"],
        input=json.dumps(list(questions.values())),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        lines = answer.stderr.strip().splitlines()
        raise ConfigError(lines[-1].removeprefix("error: ") if lines else "the network check died")
    if fetch:
        fetched = json.loads(answer.stdout.strip().rpartition("\n")[2])
        for marker, file in zip(questions, fetched, strict=True):
            marker.parent.mkdir(parents=True, exist_ok=True)
            write_json(marker, {"weights": file})


def _question(experiment: Experiment, run: RunPaths, *, fetch: bool) -> tuple[Path, dict[str, Any]]:
    """Where the answer about a run's network is noted, and what to ask."""
    folder, weights = weights_folder(experiment.data.shards_dir), experiment.weights
    file = None
    if weights not in ("none", "imagenet"):
        file = weights_file(run, weights)
        if not file.is_file():
            raise ConfigError(f"model.weights: {file} does not exist")
    asked = {
        "model": experiment.model.model_dump(),
        "size": experiment.network_size,
        "classes": len(experiment.data.class_names),
        "file": str(file) if file else None,
        "packages": [metadata.version(name) for name in _PACKAGES],
    }
    if file:
        asked["changed"] = file.stat().st_mtime_ns
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    question = {
        "experiment": experiment.model_dump_json(),
        "file": asked["file"],
        "folder": str(folder),
        "fetch": fetch,
    }
    return folder / "checked" / f"{digest}.json", question


def _is_answered(marker: Path) -> bool:
    """Whether a network was found good before, and its fetched weights are still there."""
    try:
        weights = json.loads(marker.read_text(encoding="utf-8"))["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return weights is None or Path(weights).is_file()
