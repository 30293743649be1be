"""Publishing files whole or not at all."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cardamage.system.files import publish, sha256_of, write_json, write_text

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from cardamage.system.files import publish

with publish(Path(sys.argv[1])) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_file_is_published_with_its_folder(tmp_path: Path):
    path = tmp_path / "a folder" / "x.txt"
    write_text(path, "ä")
    assert path.read_bytes() == "ä".encode()
    assert names(path.parent) == ["x.txt"]


def test_what_has_vanished_is_not_begun_anew(tmp_path: Path):
    path = tmp_path / "gone" / "resume" / "state.pt"
    with pytest.raises(FileNotFoundError) as caught:
        write_text(path, "x")
    assert caught.value.filename == str(path)
    assert names(tmp_path) == []


def test_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path):
    path = tmp_path / "x"
    write_text(path, "old")
    with publish(path) as aside:
        assert aside.parent == path.parent  # a rename across file systems would not be atomic
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_old_file_and_nothing_aside(
    tmp_path: Path, interruption: type[BaseException]
):
    path = tmp_path / "x"
    write_text(path, "old")
    with pytest.raises(interruption), publish(path) as aside:  # noqa: PT012 - the body is the test
        aside.write_text("half")
        raise interruption
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_failure_before_anything_is_written(tmp_path: Path):
    with pytest.raises(ValueError, match="too early"), publish(tmp_path / "x"):
        raise ValueError("too early")
    assert names(tmp_path) == []


def test_killed_writer_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "x"
    write_text(path, "old")
    ended = subprocess.run([sys.executable, "-c", KILLED_WRITER, path], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_text(path, "new")  # what the dead writer left aside is in nobody's way
    assert path.read_text() == "new"


def test_json_is_readable_and_strict(tmp_path: Path):
    path = tmp_path / "x.json"
    write_json(path, {"name": "ä", "values": [1, 2.5]})
    assert json.loads(path.read_text()) == {"name": "ä", "values": [1, 2.5]}
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text())["name"] == "ä"


def test_sha256_is_that_of_the_bytes(tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
