"""README, CONTRIBUTING and docs tell what is there: links, programs, targets, configs, commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cardamage import cli
from cardamage.config import loading, study, yaml12
from cardamage.runs import paths

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
]
README, EXPERIMENTS, COMMANDS, RUNS = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/experiments.md", "docs/commands.md", "docs/runs.md")
)


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def headings(page: str) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_relative_links_lead_somewhere(path: Path, page: str):
    for link in re.findall(r"\]\(([^)\s]+)\)", page):
        if link.startswith("http"):
            continue
        target, _, anchor = link.partition("#")
        assert not target or (path.parent / target).exists(), link
        assert target or anchor in headings(page), link


def test_programs_it_names_exist(page: str):
    for program in re.findall(r"\b((?:jobs|launch|cardamage|tests|configs)/[\w/.]+\.\w+)\b", page):
        assert (ROOT / program).exists(), program


def test_targets_it_names_exist(page: str):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"`make (\w+)", page) + re.findall(r"^make (\w+)", page, re.MULTILINE)
    assert set(named) <= set(targets)


def test_yaml_blocks_are_experiments_sweeps_and_studies():
    found = [yaml12.load(text) for page in (README, EXPERIMENTS) for text in blocks(page, "yaml")]
    assert len(found) >= 4
    for values in found:
        if loading.is_study(values):
            study.expand(ROOT / "configs" / "mine.yaml", values)
        else:
            data = {"source": "photos", "classes": ["scratch"]}  # of a block that leaves it out
            loading.parse({"name": "mine", "data": data, **values})


def options_named(command: str) -> set[str]:
    """The options that the pages name after ``command``, up to another command."""
    text = f"{README}\n{COMMANDS}"
    uses = re.findall(rf"cardamage {command}\b(.*?)(?=cardamage [a-z]|$)", text, re.MULTILINE)
    return set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", " ".join(uses)))


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_told_with_options_it_has(command: str):
    program = [sys.executable, "-m", "cardamage", command, "--help"]
    help_text = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    offered = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", help_text))
    assert f"`cardamage {command} " in COMMANDS
    assert options_named(command) <= offered


def test_config_keys_it_names_exist():
    resolved = loading.load(ROOT / "configs" / "unet2.yaml").model_dump()
    named = re.findall(
        r"(?<=[` ])(data|model|loss|optim|train|test)\.([a-z_]+)(?=[`=])", README + EXPERIMENTS
    )
    assert named
    for section, key in named:
        assert key in resolved[section], f"{section}.{key}"


def test_tree_names_the_files_of_a_run():
    run = paths.RunPaths(Path("runs/unet2"))
    tree = next(block for block in blocks(RUNS, "text") if block.startswith("runs/"))
    for path in (
        run.config,
        run.provenance,
        run.metrics,
        run.events,
        run.checkpoints,
        run.resume,
        run.test_table("test"),
        run.report,
        run.stage("train").parent,
        run.logs,
    ):
        assert path.name in tree, path


def test_the_readme_is_short():
    assert len(README.split()) < 900
