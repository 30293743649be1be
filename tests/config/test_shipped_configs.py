"""The experiments that come with the project, and the schema editors check them by."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cardamage.config import dataset, loading, recipe, study, study_file, yaml12

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "configs", ROOT / "configs/recipes")
ALL = sorted(path for folder in FOLDERS for path in folder.glob("*.yaml"))
STUDIES = [path for path in ALL if loading.is_study(yaml12.read_mapping(path))]
CONFIGS = [path for path in ALL if path not in STUDIES]
SCHEMA = ROOT / "configs" / "experiment.schema.json"


@pytest.fixture(params=CONFIGS, ids=lambda path: path.name)
def shipped(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_it_parses_and_round_trips(shipped: Path):
    experiment = loading.load(shipped)
    assert loading.parse(yaml12.load(experiment.to_yaml())) == experiment


def test_it_is_named_after_its_file(shipped: Path):
    assert loading.load(shipped).name == shipped.stem


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_studies_expand_and_are_named_after_their_files(path: Path):
    found = study.expand(path, yaml12.read_mapping(path))
    assert found.name == path.stem
    assert len(found.experiments) > 1


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_its_header_tells_question_hardware_and_command(path: Path):
    lines = path.read_text().splitlines()
    schema = f"{'study' if path in STUDIES else 'experiment'}.schema.json"
    there = os.path.relpath(ROOT / "configs" / schema, path.parent)
    assert lines[0] == f"# yaml-language-server: $schema={there}"
    header = "\n".join(line for line in lines if line.startswith("#"))
    for title in ("Question:", "Data:", "Hardware:"):
        assert title in header
    assert f"python launch/submit.py {path.relative_to(ROOT)}" in header


def test_smoke_needs_no_download():
    assert loading.load(ROOT / "configs" / "smoke.yaml").data.source == dataset.SYNTHETIC


def test_unet2_is_the_studys_experiment():
    experiment = loading.load(ROOT / "configs" / "unet2.yaml")
    assert experiment.data.classes == ["No Damage", "Severe Damages"]
    assert experiment.data.image_size == (240, 240)
    assert experiment.data.subset == 1.0
    assert experiment.model == recipe.UNet(name="unet2")
    assert experiment.optim == recipe.Adam(name="adam", lr=0.001)
    assert (experiment.train.epochs, experiment.train.batch_size) == (10, 16)


def test_schema_is_current():
    assert json.loads(SCHEMA.read_text()) == json.loads(loading.json_schema()), "run: make schema"
    found = json.loads(SCHEMA.with_name("study.schema.json").read_text())
    assert found == json.loads(study_file.json_schema()), "run: make schema"


def descriptions(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every field and its description: its own, or that of the section it holds."""
    sections = schema["$defs"]
    for name, section in {"Experiment": schema, **sections}.items():
        for key, field in section["properties"].items():
            held = sections.get(field.get("$ref", "").rpartition("/")[2], {})
            yield f"{name}.{key}", field.get("description", held.get("description", ""))


def test_every_field_has_a_description_of_one_line():
    for name, description in descriptions(json.loads(loading.json_schema())):
        assert description, name
        assert "\n" not in description, name


def test_schema_refuses_unknown_keys():
    schema = json.loads(loading.json_schema())
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False
