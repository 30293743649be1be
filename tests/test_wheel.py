"""The wheel: one package with everything inside, which works far from the clone."""

import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.docs.test_pages import README, blocks
from tests.helpers.programs import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip would install the wheel into."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("cardamage_runner-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def run(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the installed command from an empty folder."""
    for name, value in (
        ("PYTHONPATH", str(site)),
        ("PYTHONSAFEPATH", "1"),
        ("OMP_NUM_THREADS", "1"),
    ):
        monkeypatch.setenv(name, value)

    def command(*words: str) -> str:
        program = [sys.executable, "-m", "cardamage", *words]
        return subprocess.check_output(program, text=True, cwd=tmp_path)

    return command


def test_nothing_lies_outside_the_package(site: Path):
    (package, info) = sorted(site.iterdir())
    assert package.name == "cardamage"
    assert info.name.endswith(".dist-info")
    rooms = {path.parent.relative_to(ROOT) for path in (ROOT / "cardamage").rglob("*.py")}
    assert all((site / room / "__init__.py").is_file() for room in rooms)
    for name in (
        "configs/smoke.yaml",
        "configs/cluster/slurm.yaml",
        "configs/recipes/damage_cpu.yaml",
        "launch/slurm/job.sh",
    ):
        assert (package / name).is_file()
    assert (package / "configs" / "experiment.schema.json").is_file()
    assert list((package / "report" / "templates").glob("*.html"))


def test_a_shipped_experiment_is_found_from_an_empty_folder(run):
    assert run("--version").startswith("cardamage ")
    assert "images" in run("submit", "smoke", "--cluster", "local", "--dry-run")


def test_the_five_commands_of_the_readme_work(run, tmp_path: Path):
    """As they stand there, but for overrides that make training take seconds."""
    run("synthesize", "drawn", "--images", "30", "--size", "48")
    shutil.make_archive(str(tmp_path / "data" / "cars"), "zip", tmp_path / "drawn")
    (tmp_path / "photos").mkdir()
    for path in sorted((tmp_path / "drawn" / "test").glob("*.jpg"))[:2]:
        shutil.copy(path, tmp_path / "photos")
    (lines,) = [block for block in blocks(README, "sh") if "cardamage init" in block]
    commands = [shlex.split(line, comments=True)[1:] for line in lines.splitlines()]
    assert [words[0] for words in commands] == ["init", "submit", "submit", "status", "predict"]
    short = ("data.image_size=[32, 32]", "train.epochs=1", "train.batch_size=4")
    printed = [run(*words, *(short if words[0] == "submit" else ())) for words in commands]
    assert "cardamage submit cars" in printed[0]
    assert (tmp_path / printed[2].split(": ")[-1].strip()).is_file()  # the report
    assert "cars" in printed[3]
    assert len(list((tmp_path / "predicted").glob("*.overlay.jpg"))) == 2
