"""The saved states of a run on disk: the last two, each with its SHA-256 behind it.

A state is the truth of a run: checkpoints and ``metrics.csv`` are derived from it, so a kill
between two files leaves nothing that the next start cannot mend. It gets a name of its own before
the one before the last is removed: there is a whole one at every moment, and should the newest be
damaged later on, the one before it serves.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import IO, Any

import torch

from cardamage.console import log
from cardamage.errors import CheckpointError, MachineFault, of_storage
from cardamage.files import naming, publish
from cardamage.paths import RunPaths

KEPT = 2
"""How many states stay on disk."""

State = dict[str, Any]
"""Tensors and plain values, by name; only such are ever unpickled."""

_DIGEST_BYTES = 32


def write_state(path: Path, state: State) -> None:
    """Publish ``state`` with its hash behind it; torch reads the file all the same."""
    with publish(path) as aside:
        torch.save(state, aside)
        with aside.open("rb+") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
            stream.seek(0, os.SEEK_END)
            stream.write(digest)


def read_state(path: Path) -> State:
    """The state at ``path``, its tensors on the CPU.

    Raises:
        CheckpointError: it cannot be read, or its bytes are not those that were written.
        MachineFault: the disk or the file server fails; the file may be whole all the same.
    """
    try:
        with naming(path), path.open("rb") as stream:
            if not _is_whole(stream):
                raise CheckpointError(
                    f"{path} is damaged: its bytes are not those that were written"
                )
            stream.seek(0)
            state: State = torch.load(stream, map_location="cpu", weights_only=True)
    except OSError as error:
        if isinstance(fault := of_storage(error), MachineFault):
            raise fault from None
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is no saved state ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is no saved state (it holds a {type(state).__name__})")
    return state


def last_state(run: RunPaths) -> tuple[Path, State] | None:
    """The newest state that is whole, and where it lies; None when there never was one.

    A warning names those that are newer and damaged. One that the disk does not give now is not:
    going on from the one before would throw away what the next start can read.

    Raises:
        CheckpointError: none is whole, or none is there beside checkpoints.
        MachineFault: one cannot be read now.
    """
    problems: list[str] = []
    for path in reversed(run.states().values()):
        try:
            state = read_state(path)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if problems:
            log.warning("%s; going on from %s, which was saved before", "; ".join(problems), path)
        return path, state
    if problems:
        raise CheckpointError(
            f"{'; '.join(problems)}; restore one of them, or delete {run.resume} and "
            f"{run.checkpoints} to train anew"
        )
    if run.finished_checkpoints():
        raise CheckpointError(
            f"{run.checkpoints} holds checkpoints but the states in {run.resume} are gone, so "
            f"training cannot go on; restore them, or delete the checkpoints to train anew"
        )
    return None


def remove_old_states(run: RunPaths, kept: list[Path]) -> None:
    """Remove every state but those ``kept``."""
    for path in run.states().values():
        if path not in kept:
            path.unlink(missing_ok=True)


def _is_whole(stream: IO[bytes]) -> bool:
    content = stream.read()
    body, digest = memoryview(content)[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    return hashlib.sha256(body).digest() == digest
