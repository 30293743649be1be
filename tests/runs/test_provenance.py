import subprocess
import sys
from pathlib import Path

import pytest

from cardamage.runs import provenance as module
from cardamage.runs.provenance import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "a tree"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "kept.txt").write_text("one\n")
    git(folder, "add", "kept.txt")
    git(folder, "commit", "-q", "-m", "First")
    return folder


def test_clean_tree_has_commit_and_branch(repository: Path) -> None:
    state = provenance(repository)["git"]
    assert state == {
        "commit": git(repository, "rev-parse", "HEAD"),
        "branch": "trunk",
        "dirty": False,
        "patch": "",
        "patch_cut": False,
        "untracked": [],
        "untracked_kept": "names only",
    }


def test_patch_turns_the_commit_into_the_working_tree(repository: Path, tmp_path: Path) -> None:
    (repository / "kept.txt").write_text("two\n")
    (repository / "näu.txt").write_text("new\n")
    state = provenance(repository)["git"]
    assert state["dirty"]
    assert state["untracked"] == ["näu.txt"]

    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(repository), str(again))
    subprocess.run(["git", "apply"], cwd=again, input=state["patch"], text=True, check=True)
    assert (again / "kept.txt").read_text() == "two\n"


def test_long_patch_is_cut_and_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PATCH_BYTES", 100)
    (repository / "kept.txt").write_text("long\n" * 1000)
    state = provenance(repository)["git"]
    assert (len(state["patch"]), state["patch_cut"]) == (100, True)


def test_detached_head_and_no_commit_yet(repository: Path, tmp_path: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    assert provenance(repository)["git"]["branch"] is None
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    assert provenance(empty)["git"]["commit"] is None


def test_outside_git_and_inside_a_foreign_repository(repository: Path, tmp_path: Path) -> None:
    assert provenance(tmp_path)["git"] is None
    inner = repository / "snapshot"
    inner.mkdir()
    assert provenance(inner)["git"] is None


def test_without_git_installed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance(repository)["git"] is None


def test_names_versions_and_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["launch/submit.py", "a config.yaml"])
    found = provenance(tmp_path)
    assert found["command"] == f"{sys.executable} launch/submit.py 'a config.yaml'"
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "numpy", "pydantic"} <= found["packages"].keys()
    assert "ruff" not in found["packages"]  # a tool of development, not a dependency
