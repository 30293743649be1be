"""``python -m cardamage.models.prepare``: what a launcher, which has no torch, asks of networks.

Standard input holds a JSON list of questions. Standard output ends in a line with a JSON list of
the files of fetched weights, null where there are none; what is wrong is one line on standard
error, with exit status 2.
"""

import json
import sys
from pathlib import Path
from typing import Any

from cardamage.config.experiment import Experiment
from cardamage.errors import run_program
from cardamage.models.pretrained import checked, fetch, load_pretrained


def _answer(question: dict[str, Any]) -> str | None:
    experiment = Experiment.model_validate_json(question["experiment"])
    model, classes = experiment.model, len(experiment.data.class_names)
    network = checked(model, classes, experiment.network_size)
    if question["file"]:
        load_pretrained(network, Path(question["file"]))
    elif question["fetch"] and (path := fetch(model, Path(question["folder"]))):
        return str(path)
    return None


def _main() -> None:
    answers = [_answer(question) for question in json.load(sys.stdin)]
    print(json.dumps(answers))  # noqa: T201 - the launcher reads it


if __name__ == "__main__":
    run_program(_main)
