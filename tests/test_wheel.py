"""The wheel: one package with everything inside, which works far from the clone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def test_a_shipped_experiment_runs_from_an_empty_folder(run, tmp_path: Path):
    assert run("--version").startswith("cardamage ")
    run("synthesize", "cars", "--images", "12", "--size", "48")
    assert "cardamage submit cars" in run("init", "cars")
    out = run("submit", "smoke", "--cluster", "local", "train.epochs=1")
    assert (tmp_path / out.split(": ")[-1].strip()).is_file()  # the report
    assert "smoke" in run("status")
    run("predict", "smoke", "--images", "cars/test", "--out", "predicted")
    assert list((tmp_path / "predicted").glob("*.overlay.jpg"))
