"""What a stage leaves behind that has to be equal: files by name, each with its hash."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cardamage.runs.paths import RunPaths
from cardamage.system.files import sha256_of

Results = Mapping[str, str]
"""Hex SHA-256 of each file, by its path within the folder of a trial."""


def results(root: Path, run: RunPaths, shards: Path, stage: str, split: str) -> Results:
    """The result files of one stage of a trial.

    Markers, logs, events and the state to resume from hold times and process ids and are not
    compared: what they are for is that these files come out equal.

    Args:
        root: the trial's folder.
        run: its run directory.
        shards: the folder of its packed datasets, drawn sources included.
        stage: ``pack``, ``train`` or ``test``.
        split: the split that is tested on.
    """
    match stage:
        case "pack":
            found = list(shards.rglob("*"))
        case "train":
            kept = run.validation_counts(1).parent
            found = [run.metrics, *run.checkpoints.glob("*"), *kept.glob("*")]
        case "test":
            found = [run.test_table(split), *run.test_counts(split, 1).parent.glob("*")]
        case _:
            raise ValueError(stage)
    return {str(path.relative_to(root)): sha256_of(path) for path in _published(found, root)}


def difference(found: Results, expected: Results) -> str | None:
    """What differs, in words, or None: the first file that does, and how many more."""
    names = sorted({*found, *expected})
    differing = [name for name in names if found.get(name) != expected.get(name)]
    if not differing:
        return None
    name = differing[0]
    if name not in found:
        text = f"{name} is missing"
    elif name not in expected:
        text = f"{name} should not be there"
    else:
        text = f"{name} differs"
    return f"{text} (and {len(differing) - 1} more)" if len(differing) > 1 else text


def parts(root: Path) -> set[Path]:
    """Every file or folder that is being written aside, or was when its writer was killed."""
    found = set()
    for folder, folders, files in os.walk(root):  # much quicker than a glob, and time counts here
        for name in (*folders, *files):
            if name.startswith(".") and name.endswith(".part"):
                found.add(Path(folder, name))
    return found


def _published(paths: Iterable[Path], root: Path) -> Iterable[Path]:
    for path in paths:
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and not hidden:
            yield path
