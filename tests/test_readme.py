"""README and CONTRIBUTING tell what is there: links, programs, targets, the config."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cardamage import config, paths, yaml12
from launch import study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")]
README = PAGES[0].read_text(encoding="utf-8")
PROGRAM = re.compile(r"(?:jobs|launch)/\w+\.py")


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def page(request: pytest.FixtureRequest) -> str:
    return request.param.read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def headings(page: str) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_relative_links_lead_somewhere(page: str):
    for link in re.findall(r"\]\(([^)\s]+)\)", page):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        assert not path or (ROOT / path).exists(), link
        assert path or anchor in headings(page), link


def test_programs_it_names_exist(page: str):
    for program in re.findall(r"\b((?:jobs|launch|cardamage|tests|configs)/[\w/.]+\.\w+)\b", page):
        assert (ROOT / program).exists(), program


def test_targets_it_names_exist(page: str):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"`make (\w+)", page) + re.findall(r"^make (\w+)", page, re.MULTILINE)
    assert set(named) <= set(targets)


def test_yaml_blocks_are_experiments_sweeps_and_studies():
    found = [yaml12.load(text) for text in blocks(README, "yaml")]
    assert found
    for values in found:
        if config.is_study(values):
            study.expand(ROOT / "configs" / "mine.yaml", values)
        else:
            config.parse(values)


def options_named(program: str) -> set[str]:
    """The options that README names after ``program``, up to the line's end or another program."""
    commands = re.findall(rf"{program}(.*?)(?={PROGRAM.pattern}|$)", README, re.MULTILINE)
    return set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", " ".join(commands)))


@pytest.mark.parametrize("program", sorted(set(PROGRAM.findall(README))))
def test_options_it_names_are_those_of_the_program(program: str):
    help_text = subprocess.run(
        [sys.executable, ROOT / program, "--help"], capture_output=True, text=True, check=True
    ).stdout
    offered = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", help_text))
    assert options_named(program) <= offered


def test_config_keys_it_names_exist():
    resolved = config.load(ROOT / "configs" / "unet2.yaml").model_dump()
    named = re.findall(r"(?<=[` ])(data|model|loss|optim|train|test)\.([a-z_]+)(?=[`=])", README)
    assert named
    for section, key in named:
        assert key in resolved[section], f"{section}.{key}"


def test_tree_names_the_files_of_a_run():
    run = paths.RunPaths(Path("runs/unet2"))
    tree = next(block for block in blocks(README, "text") if block.startswith("runs/"))
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
