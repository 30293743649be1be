"""A model card: what a model is and was trained on, what it scores, and where its limits are.

Markdown below the metadata that the Hugging Face Hub reads:
https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path, PurePath
from typing import Any

from cardamage.config import yaml12
from cardamage.config.dataset import SYNTHETIC
from cardamage.config.experiment import Experiment
from cardamage.data.coco.annotation_file import parsed
from cardamage.data.coco.source import ImageSource
from cardamage.errors import UserError, counted
from cardamage.evaluation.metrics import OF_CLASS
from cardamage.report import wording
from cardamage.report.load import RunResults
from cardamage.report.notices import run_notices
from cardamage.report.page import render_markdown
from cardamage.report.plots import drawn_scores
from cardamage.report.run import class_rows, facts
from cardamage.runs.checkpoints import rule


def model_card(
    results: RunResults, *, licence: str | None = None, repository: str | None = None
) -> str:
    """The card of the chosen checkpoint of a run.

    Args:
        licence: of the model, by the Hub's name for it; left out when None.
        repository: its name on the Hub, for the lines that load it.
    """
    experiment, epoch = results.experiment, results.best
    select_by, estimates = experiment.test.select_by, results.intervals[epoch]
    shown = drawn_scores(select_by)
    metadata = _metadata(results, shown) | ({"license": licence} if licence else {})
    return render_markdown(
        "card.md",
        {
            "metadata": yaml12.dump(metadata).rstrip(),
            "name": experiment.name,
            "classes": results.result.class_names[1:],
            "epoch": epoch,
            "rule": rule(select_by),
            "validation": results.validation(select_by, epoch),
            "source": repository or results.run.checkpoint(epoch).name,
            "split": experiment.test.split,
            "images": counted(results.images, "image"),
            "scores": [(wording.title(name), estimates[name]) for name in shown],
            "class_columns": list(OF_CLASS),
            "class_rows": class_rows(results),
            "size": wording.size(experiment.network_size),
            "warnings": [each for each in run_notices(results) if each.level == "warning"],
            "licences": licences_of(experiment),
            "facts": facts(results),
        },
    )


def licences_of(experiment: Experiment) -> list[str]:
    """The licences that a dataset's annotation files name; none where they are not here."""
    if experiment.data.source == SYNTHETIC:
        return ["CC0 1.0"]
    found: dict[str, None] = {}
    try:
        with closing(ImageSource(Path(experiment.data.source), experiment.data.annotations)) as s:
            for split in sorted(s.splits()):
                listed = parsed(s.annotations(split)).get("licenses")
                for licence in listed if isinstance(listed, list) else []:
                    if isinstance(licence, dict) and (name := licence.get("name")):
                        found[str(name)] = None
    except (UserError, ValueError, OSError):
        return []
    return list(found)


def _metadata(results: RunResults, shown: Sequence[str]) -> dict[str, Any]:
    """What the Hub shows beside the card and searches by."""
    experiment = results.experiment
    dataset = PurePath(experiment.data.source).stem
    estimates = results.intervals[results.best]
    metrics = [
        {
            "type": {"miou": "mean_iou"}.get(name, name),
            "name": wording.title(name),
            "value": round(estimates[name].value, 4),
        }
        for name in shown
        if not math.isnan(estimates[name].value)
    ]
    result = {
        "task": {"type": "image-segmentation"},
        "dataset": {"name": dataset, "type": dataset, "split": experiment.test.split},
        "metrics": metrics,
    }
    return {
        "library_name": "cardamage",
        "pipeline_tag": "image-segmentation",
        "tags": ["image-segmentation", "semantic-segmentation", "car-damage"],
        "model-index": [{"name": experiment.name, "results": [result]}],
    }
