"""Where a run comes from: the code, the packages, the machine and the command.

Gathering never fails a run: what cannot be found out is left out, and git is asked without taking
its locks, so that a commit made at the same moment goes through.
"""

import json
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from cardamage.runs.attempts import begin_attempt
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import now, read_stage

CODE = Path(__file__).resolve().parents[2]
"""The tree this code was imported from."""

ORIGIN = ".snapshot.json"
"""The file in a snapshot of the code that tells where it was taken from."""

MAX_PATCH_BYTES = 1 << 20
"""A longer patch is cut, and ``patch_cut`` says so."""

MAX_UNTRACKED = 1000
"""So many names of untracked files are kept."""

_GIT_TIMEOUT_S = 10.0


def record_attempt(run: RunPaths, stage: str, *, devices: str = "cpu", processes: int = 1) -> None:
    """Put on record that a stage, which is marked as running, found something to do."""
    started = read_stage(run, stage).started or now()
    begin_attempt(run, stage, provenance(), started=started, devices=devices, processes=processes)


def provenance(code: Path = CODE) -> dict[str, Any]:
    """What is known of this start, ready for JSON.

    Keys: ``time`` (UTC), ``command`` (one shell line), ``directory``, ``host``, ``platform``,
    ``python``, ``packages`` (version by name), ``code`` (the tree), ``snapshot``: None unless the
    tree is a snapshot, else ``hash``, ``tree`` (what was copied) and ``taken`` (when), and ``git``:
    None outside a repository, else ``commit``, ``branch`` (None when detached), ``dirty``,
    ``patch`` (from the commit to the working tree), ``patch_cut``, ``untracked`` (names) and
    ``untracked_kept``: what is kept of those files. A snapshot's ``git`` is that of the tree it was
    taken from.
    """
    return {
        "time": now(),
        "command": shlex.join([sys.executable, *sys.argv]),
        "directory": _working_directory(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": _packages(),
        "code": str(code),
        "snapshot": snapshot_of(code),
        "git": git_state(code),
    }


def read_origin(code: Path) -> dict[str, Any] | None:
    """What the snapshot ``code`` says of itself; None when that folder is none."""
    try:
        origin = json.loads((code / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return origin if isinstance(origin, dict) else None


def snapshot_of(code: Path) -> dict[str, Any] | None:
    """The ``snapshot`` part of :func:`provenance`."""
    origin = read_origin(code)
    return origin and {key: origin.get(key) for key in ("hash", "tree", "taken")}


def git_state(code: Path) -> dict[str, Any] | None:
    """The ``git`` part of :func:`provenance`."""
    if origin := read_origin(code):
        state: dict[str, Any] | None = origin.get("git")
        return state
    top = git(code, "rev-parse", "--show-toplevel")
    # A copy of the code inside somebody else's repository is not described by that repository.
    if top is None or Path(os.fsdecode(top.rstrip(b"\n"))).resolve() != code.resolve():
        return None
    commit = git(code, "rev-parse", "--verify", "HEAD")  # None before the first commit
    branch = git(code, "symbolic-ref", "--short", "HEAD")
    patch = git(code, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv") or b""
    listing = git(code, "ls-files", "--others", "--exclude-standard", "-z") or b""
    untracked = [_text(name) for name in listing.split(b"\0") if name]
    return {
        "commit": _text(commit) if commit else None,
        "branch": _text(branch) if branch else None,
        "dirty": bool(patch or untracked),
        "patch": _text(patch[:MAX_PATCH_BYTES], strip=False),
        "patch_cut": len(patch) > MAX_PATCH_BYTES,
        "untracked": untracked[:MAX_UNTRACKED],
        "untracked_kept": "names only",
    }


def git(folder: Path, *arguments: str) -> bytes | None:
    """What a git command prints in a folder; None when it fails, hangs, or there is no git."""
    environment = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout


def _working_directory() -> str | None:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # it was deleted under the program
        return None


def _packages() -> dict[str, str]:
    """Versions of what the project depends on, read from their metadata: nothing is imported."""
    try:
        requirements = metadata.requires("cardamage-runner") or []
    except metadata.PackageNotFoundError:  # run from a plain copy of the tree
        return {}
    versions = {}
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name is None or "extra ==" in requirement:
            continue
        try:
            versions[name[0]] = metadata.version(name[0])
        except metadata.PackageNotFoundError:
            continue
    return versions


def _text(content: bytes, *, strip: bool = True) -> str:
    text = content.decode("utf-8", errors="replace")
    return text.strip() if strip else text
