"""The model card says what the model scores, on what it was trained, and where its limits are."""

import json

import pytest

from cardamage.config import yaml12
from cardamage.report import wording
from cardamage.report.card import licences_of, model_card
from cardamage.report.load import load_run
from cardamage.runs.directory import resolve
from tests.helpers.finished_runs import make_run


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("card") / "doors", epochs=2, images=4)
    return load_run(run, resolve(run.root)[0])


def test_its_metadata_are_what_the_hub_reads(results):
    card = model_card(results, licence="apache-2.0", repository="jane/doors")
    metadata = yaml12.load(card.split("---\n")[1])
    assert metadata["license"] == "apache-2.0"
    (entry,) = metadata["model-index"]
    (result,) = entry["results"]
    assert result["dataset"] == {"name": "doors", "type": "doors", "split": "test"}
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    estimate = results.intervals[results.best]["dice_fg"]
    assert values["Foreground Dice"] == pytest.approx(estimate.value, abs=1e-4)
    assert 'load_model("jane/doors")' in card
    assert "license" not in yaml12.load(model_card(results).split("---\n")[1])


def test_it_tells_scores_with_intervals_limits_and_training(results):
    card = model_card(results)
    estimate = results.intervals[results.best]["dice_fg"]
    assert f"{estimate.value:.3f} | {wording.interval(estimate.low, estimate.high)} |" in card
    for heading in ("## Use", "## Scores", "## Limits", "## Data and training"):
        assert heading in card
    for row in ("scratch", "dent"):
        assert f"| {row} |" in card
    assert "not stated" in card
    assert "adam, lr 0.001" in card


def test_licences_are_those_of_the_annotation_files(results, tmp_path):
    for split, names in (("train", ["CC BY 4.0", "MIT"]), ("valid", ["CC BY 4.0"])):
        folder = tmp_path / "export" / split
        folder.mkdir(parents=True)
        content = {
            "licenses": [{"id": i, "name": name} for i, name in enumerate(names)],
            "images": [],
            "annotations": [],
            "categories": [],
        }
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
    data = results.experiment.data.model_copy(update={"source": str(tmp_path / "export")})
    experiment = results.experiment.model_copy(update={"data": data})
    assert licences_of(experiment) == ["CC BY 4.0", "MIT"]
    assert licences_of(results.experiment) == []
    drawn = data.model_copy(update={"source": "synthetic"})
    assert licences_of(experiment.model_copy(update={"data": drawn})) == ["CC0 1.0"]
