"""The copy of the code that a submission takes along, made from real repositories and trees."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cardamage.errors import RunError
from cardamage.launch.slurm import code_snapshot as module
from cardamage.launch.slurm.code_snapshot import share_snapshot, take_snapshot
from cardamage.runs.paths import RunPaths
from cardamage.runs.provenance import CODE, provenance


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(snapshot: Path) -> set[str]:
    found = {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if not path.is_dir()}
    return found - {".snapshot.json"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository: a committed program, one changed since, one untracked, and ignored files."""
    folder = tmp_path / "a tree"
    write(folder / "cardamage/a.py", "print('a')\n")
    write(folder / "jobs/old job.py", "committed\n")
    write(folder / "jobs/gone.py", "deleted since\n")
    write(folder / "pyproject.toml", "")
    write(folder / ".gitignore", "/runs/\n/data/\n*.log\n")
    (folder / "cardamage/a.py").chmod(0o755)
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "First")
    write(folder / "jobs/old job.py", "changed\n")
    (folder / "jobs/gone.py").unlink()
    write(folder / "jobs/neu ä.py", "untracked\n")
    write(folder / "data/secret.txt", "ignored\n")
    write(folder / "jobs/x.log", "ignored\n")
    return folder


@pytest.fixture
def run(tree: Path) -> RunPaths:
    return RunPaths(tree / "runs" / "one")


COPIED = {".gitignore", "pyproject.toml", "cardamage/a.py", "jobs/old job.py", "jobs/neu ä.py"}


def test_it_is_the_working_tree_without_what_is_ignored(tree: Path, run: RunPaths):
    snapshot = take_snapshot(run, tree)
    assert snapshot.parent == run.code
    assert names(snapshot) == COPIED
    assert (snapshot / "jobs/old job.py").read_text() == "changed\n"
    assert os.access(snapshot / "cardamage/a.py", os.X_OK)
    assert not os.access(snapshot / "jobs/neu ä.py", os.X_OK)
    assert [path.name for path in run.code.iterdir()] == [snapshot.name]  # nothing left aside


def test_later_changes_do_not_reach_it(tree: Path, run: RunPaths):
    snapshot = take_snapshot(run, tree)
    write(tree / "jobs/old job.py", "edited while queued\n")
    shutil.rmtree(tree / "cardamage")
    assert (snapshot / "jobs/old job.py").read_text() == "changed\n"
    assert (snapshot / "cardamage/a.py").is_file()


def test_equal_code_is_copied_once_and_other_code_beside_it(tree: Path, run: RunPaths):
    first = take_snapshot(run, tree)
    before = (first / "jobs/old job.py").stat().st_ino
    write(first / "cardamage/__pycache__/a.cpython-312.pyc", "left by a job that ran")
    assert take_snapshot(run, tree) == first
    assert (first / "jobs/old job.py").stat().st_ino == before
    write(tree / "jobs/old job.py", "other\n")
    second = take_snapshot(run, tree)
    assert second != first
    assert (first / "jobs/old job.py").read_text() == "changed\n"
    assert sorted(run.code.iterdir()) == sorted([first, second])


def test_the_executable_bit_and_names_are_content(tree: Path, run: RunPaths):
    seen = {take_snapshot(run, tree)}
    (tree / "jobs/old job.py").chmod(0o755)
    seen.add(take_snapshot(run, tree))
    (tree / "jobs/old job.py").rename(tree / "jobs/new job.py")
    seen.add(take_snapshot(run, tree))
    assert len(seen) == 3


def test_snapshot_that_was_edited_is_not_used_again(tree: Path, run: RunPaths):
    snapshot = take_snapshot(run, tree)
    write(snapshot / "jobs/old job.py", "edited in place\n")
    with pytest.raises(RunError, match=r"was changed after it was taken.*delete it"):
        take_snapshot(run, tree)


def test_links(tree: Path, run: RunPaths, tmp_path: Path):
    write(tmp_path / "outside/notes.txt", "outside\n")
    (tree / "to_file.py").symlink_to("jobs/old job.py")
    (tree / "jobs/to_folder").symlink_to(tree / "cardamage")  # absolute, and yet inside
    (tree / "to_outside").symlink_to("../outside")
    (tree / "to_outside.txt").symlink_to("../outside/notes.txt")
    (tree / "to_ignored.txt").symlink_to("data/secret.txt")
    (tree / "to_nothing").symlink_to("nowhere")
    (tree / "to_itself").symlink_to("to_itself")
    snapshot = take_snapshot(run, tree)
    write(tree / "jobs/old job.py", "edited\n")
    write(tree / "data/secret.txt", "edited\n")
    assert (snapshot / "to_file.py").read_text() == "changed\n"
    assert (snapshot / "jobs/to_folder").resolve() == (snapshot / "cardamage").resolve()
    assert (snapshot / "to_outside").resolve() == (tmp_path / "outside").resolve()
    assert (snapshot / "to_outside.txt").read_text() == "outside\n"
    assert (snapshot / "to_ignored.txt").read_text() == "ignored\n"
    assert (snapshot / "to_nothing").is_symlink()
    assert (snapshot / "to_itself").is_symlink()


def test_what_the_programs_made_in_the_tree_is_no_code(tree: Path):
    run = RunPaths(tree / "out" / "new")  # not ignored
    write(tree / "out/old/config.yaml", "name: old\n")
    write(tree / "out/old/provenance.json", "{}")
    write(tree / "out/old/checkpoints/epoch-0001.safetensors", "weights")
    write(tree / "packed/cars-1/manifest.json", "{}")
    write(tree / "packed/cars-1/train/index.npy", "index")
    write(tree / "packed/cars-1/train/000000.tar", "images")
    write(run.logs / "train.log", "")
    snapshot = take_snapshot(run, tree)
    assert names(snapshot) == COPIED
    assert take_snapshot(run, tree) == snapshot


def test_outside_git_the_project_is_copied(tree: Path, tmp_path: Path):
    shutil.rmtree(tree / ".git")
    write(tree / "cardamage/__pycache__/a.pyc", "cache")
    write(tree / "notes.txt", "not of the project")
    snapshot = take_snapshot(RunPaths(tmp_path / "run"), tree)
    copied = {"cardamage/a.py", "jobs/old job.py", "jobs/neu ä.py", "jobs/x.log", "pyproject.toml"}
    assert names(snapshot) == copied
    assert provenance(snapshot)["git"] is None


def test_without_git_installed(tree: Path, run: RunPaths, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert "jobs/neu ä.py" in names(take_snapshot(run, tree))


def test_submodules_and_repositories_inside_are_copied(tree: Path, run: RunPaths):
    inner = tree / "jobs" / "inner"
    write(inner / "b.py", "b\n")
    write(inner / ".gitignore", "*.tmp\n")
    git(inner, "init", "-q")
    git(inner, "add", ".")
    git(inner, "commit", "-q", "-m", "Inner")
    git(tree, "add", "jobs/inner")  # a submodule as far as the listing is concerned
    write(inner / "c.tmp", "ignored there")
    assert names(take_snapshot(run, tree)) == COPIED | {
        "jobs/inner/b.py",
        "jobs/inner/.gitignore",
    }


def test_snapshot_of_a_snapshot_is_the_same(tree: Path, run: RunPaths, tmp_path: Path):
    first = take_snapshot(run, tree)
    second = take_snapshot(RunPaths(tmp_path / "other"), first)
    assert second.name == first.name
    assert names(second) == names(first)
    assert provenance(second)["git"] == provenance(tree)["git"]


def test_large_trees_are_refused(tree: Path, run: RunPaths):
    with (tree / "photos.zip").open("wb") as stream:
        stream.truncate(module.MAX_BYTES)  # sparse
    with pytest.raises(RunError) as refused:
        take_snapshot(run, tree)
    assert "100 MiB in 6 files, and may be 100 MiB" in str(refused.value)
    assert "the largest is photos.zip (100 MiB): name what is no code in .gitignore" in str(
        refused.value
    )
    assert not run.code.exists()


def test_place_that_cannot_be_written(tree: Path):
    write(tree / "runs/one", "a file")
    with pytest.raises(RunError, match=r"cannot be copied to .*--runs-dir"):
        take_snapshot(RunPaths(tree / "runs" / "one"), tree)


def test_many_runs_share_one_copy(tree: Path, run: RunPaths):
    snapshot = take_snapshot(run, tree)
    others = [RunPaths(tree / "runs" / f"run {number}") for number in range(3)]
    links = [share_snapshot(snapshot, other) for other in others]
    assert links[2] == others[2].code / snapshot.name
    assert all(link.resolve() == snapshot.resolve() for link in links)
    assert share_snapshot(snapshot, others[0]) == links[0]
    # The folder of all runs can be moved, and a run that loses the copy takes its own.
    (tree / "runs").rename(tree / "moved")
    assert names(tree / "moved" / "run 0" / "code" / snapshot.name) == COPIED
    shutil.rmtree(tree / "moved" / "one")
    own = take_snapshot(RunPaths(tree / "moved" / "run 0"), tree)
    assert not own.is_symlink()
    assert share_snapshot(own, RunPaths(tree / "moved" / "run 0")) == own


def test_provenance_inside_it_tells_where_it_came_from(tree: Path, run: RunPaths):
    found = provenance(tree)
    snapshot = take_snapshot(run, tree, found)
    inside = provenance(snapshot)
    assert found["snapshot"] is None
    assert inside["git"] == found["git"]
    assert inside["git"]["untracked"] == ["jobs/neu ä.py"]
    assert "+changed" in inside["git"]["patch"]
    assert inside["snapshot"]["tree"] == str(tree)
    assert inside["snapshot"]["hash"].startswith(snapshot.name)
    assert inside["code"] == str(snapshot)


def test_its_programs_import_its_own_code(tmp_path: Path):
    """What a job does: a program of the snapshot, with the snapshot ahead of what is installed."""
    snapshot = take_snapshot(RunPaths(tmp_path / "a run"))
    assert (snapshot / "jobs/pack.py").read_bytes() == (CODE / "jobs/pack.py").read_bytes()
    write(snapshot / "jobs/where.py", "import cardamage; print(cardamage)")
    result = subprocess.run(
        [sys.executable, snapshot / "jobs/where.py"],
        env={**os.environ, "PYTHONPATH": str(snapshot)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(snapshot) in result.stdout
    assert json.loads((snapshot / ".snapshot.json").read_text())["tree"] == str(CODE)


def test_of_an_installed_package_that_alone_is_copied(tmp_path: Path):
    """Beside other packages, in a repository that does not ignore them."""
    site = tmp_path / "work" / "site-packages"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CODE / "cardamage", site / "cardamage", ignore=ignored)
    write(site / "jobs/foreign.py", "of another package")
    write(site / "numpy/__init__.py", "of another package")
    git(tmp_path / "work", "init", "-q")
    run = RunPaths(tmp_path / "a run")
    snapshot = take_snapshot(run, site)
    assert {name.partition("/")[0] for name in names(snapshot)} == {"cardamage"}
    assert (snapshot / "cardamage/launch/slurm/job.sh").is_file()
    attempt = ["-P", "-m", "cardamage.launch.slurm.attempt", "--limit", "3", "begin", run.root]

    def begin(code: Path, imported: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *attempt, "report", "--code", code],
            env={**os.environ, "PYTHONPATH": str(imported), "SLURM_JOB_ID": "7"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    started = begin(snapshot, snapshot)
    assert (started.returncode, started.stderr) == (0, "")
    refused = begin(snapshot, site)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: Python imports cardamage ")
    assert str(site) in line
    assert str(snapshot) in line
