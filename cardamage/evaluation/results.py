"""Per-image test results of one checkpoint: the npz files that every statistic is made of."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardamage.data.drawing import layer_png
from cardamage.errors import RunError
from cardamage.evaluation.damages import Damages
from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import read_table
from cardamage.system.files import publish, sha256_of

# What numpy and zipfile raise over files with flipped, missing or foreign bytes.
_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class TestResult:
    """What testing one checkpoint on one split gave.

    Attributes:
        epoch: the checkpoint's epoch, from 1.
        weights_sha256: hash of the tested weights, so a result is never taken for another's; empty
            in what training keeps of its validation.
        class_names: by class id, background first; C in all.
        keys: sample keys of shape (N,), in the order of the split.
        counts: int64 of shape (N, C, C): ``counts[n, t, p]`` pixels of image n have the true class
            t and the predicted class p.
        loss: float64 of shape (N,): each image's loss.
        map_samples: int64 of shape (K,): sample numbers whose predicted maps are kept.
        maps: their predicted class ids, K PNG files as
            :func:`~cardamage.data.drawing.layer_png` makes them.
        flip: whether each image was looked at mirrored as well.
        damages: None in results of before they were counted.
    """

    __test__ = False  # not a pytest class

    epoch: int
    weights_sha256: str
    fingerprint: str
    class_names: tuple[str, ...]
    keys: NDArray[np.str_]
    counts: NDArray[np.int64]
    loss: NDArray[np.float64]
    map_samples: NDArray[np.int64]
    maps: tuple[bytes, ...]
    flip: bool = False
    damages: Damages | None = None


def write_result(path: Path, result: TestResult) -> None:
    """Publish a result."""
    counted: dict[str, Any] = {}
    if found := result.damages:
        counted = {
            "damages": found.counts,
            "presence": found.presence,
            "reliability": found.reliability,
        }
        if found.disagreements is not None:
            counted["disagreements"] = found.disagreements
    with publish(path) as aside, aside.open("wb") as stream:
        np.savez_compressed(
            stream,
            epoch=np.int64(result.epoch),
            weights_sha256=np.str_(result.weights_sha256),
            fingerprint=np.str_(result.fingerprint),
            class_names=np.array(result.class_names, dtype=np.str_),
            keys=result.keys,
            counts=result.counts,
            loss=result.loss,
            map_samples=result.map_samples,
            map_bytes=np.array([len(png) for png in result.maps], np.int64),
            map_files=np.frombuffer(b"".join(result.maps), np.uint8),
            flip=np.bool_(result.flip),
            **counted,
        )


def read_result(path: Path) -> TestResult:
    """The result of one checkpoint.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return TestResult(
                epoch=int(arrays["epoch"]),
                weights_sha256=str(arrays["weights_sha256"]),
                fingerprint=str(arrays["fingerprint"]),
                class_names=tuple(arrays["class_names"].tolist()),
                keys=arrays["keys"],
                counts=arrays["counts"],
                loss=arrays["loss"],
                map_samples=arrays["map_samples"],
                maps=_maps(arrays),
                flip=bool(arrays["flip"]) if "flip" in arrays else False,  # the first had none
                damages=_damages(arrays),
            )
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; run the test stage") from None
    except _DAMAGE:
        # What numpy says is left out: of foreign bytes it says how to unpickle them all the same.
        raise RunError(f"{path} is damaged; delete it and test again") from None


def is_sound(run: RunPaths, split: str) -> bool:
    """Whether the results on a split and their table are whole, and of the checkpoints there are.

    Checkpoints that are gone do not count.
    """
    try:
        rows = read_table(run.test_table(split))
        listed = {int(row["epoch"]): row["weights_sha256"] for row in rows}
        return all(
            sha256_of(path) == listed.get(epoch)
            and read_result(run.test_counts(split, epoch)).weights_sha256 == listed[epoch]
            for epoch, path in run.finished_checkpoints().items()
        )
    except (RunError, LookupError, ValueError):
        return False


def _maps(arrays: Mapping[str, NDArray[Any]]) -> tuple[bytes, ...]:
    if "maps" in arrays:  # as arrays, before there were hundreds of them
        return tuple(map(layer_png, arrays["maps"]))
    ends = np.cumsum(arrays["map_bytes"])
    files = arrays["map_files"].tobytes()
    if len(files) != (ends[-1] if len(ends) else 0):
        raise ValueError("the maps are cut short")
    return tuple(
        files[end - size : end] for end, size in zip(ends, arrays["map_bytes"], strict=True)
    )


def _damages(arrays: Mapping[str, NDArray[Any]]) -> Damages | None:
    if "damages" not in arrays:
        return None
    kept = arrays.get("disagreements")
    return Damages(arrays["damages"], arrays["presence"], arrays["reliability"], kept)
