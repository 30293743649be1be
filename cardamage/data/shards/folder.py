"""The folder that shards are packed into: who may write it, what is complete, what is left over."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cardamage.data.shards.manifest import SplitRecord, fault_in_size, read_manifest
from cardamage.data.shards.storage import StoredTars
from cardamage.errors import DataError
from cardamage.runs.paths import SPLITS, ShardPaths
from cardamage.system.console import log
from cardamage.system.files import sha256_of
from cardamage.system.locks import hold


def is_complete(
    paths: ShardPaths, fingerprint: str, *, stored: StoredTars | None = None, check: bool = False
) -> bool:
    """Whether the manifest is there and every shard and index is as it says.

    With ``check`` it goes by the shards' bytes, which takes a while, rather than by their sizes.
    Shards in object storage count there; a manifest that only the storage has is fetched.

    Raises:
        DataError: the folder holds shards of another fingerprint.
    """
    if stored:
        stored.fetch_manifest()
    if not paths.manifest.exists():
        return False
    try:
        manifest = read_manifest(paths)
    except DataError:
        return False
    if manifest.fingerprint != fingerprint:
        raise DataError(
            f"{paths.root} holds shards of another fingerprint ({manifest.fingerprint[:16]}..., "
            f"not {fingerprint[:16]}...); delete that folder and pack again"
        )
    return all(
        _is_whole(paths, split, record, stored, check=check)
        for split, record in manifest.splits.items()
    )


def _is_whole(
    paths: ShardPaths, split: str, record: SplitRecord, stored: StoredTars | None, *, check: bool
) -> bool:
    index = paths.index(split)
    if not index.is_file() or sha256_of(index) != record.index_sha256:
        return False
    if stored and not stored.holds(split, record):
        return False
    for number, shard in enumerate(record.shards):
        path = paths.shard(split, number)
        if not stored and fault_in_size(path, shard.bytes):
            return False
        if check and (stored.sha256 if stored else sha256_of)(path) != shard.sha256:
            where = stored.url(path) if stored else path
            log.warning("%s has other bytes than were packed", where)
            return False
    return True


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make ``folder`` and keep other processes out of it: two experiments may start at once.

    The lock lies beside the folder, which may be removed while it is held.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    if lock.exists():
        log.info("another process may be packing %s; waiting for it", folder)
    with hold(lock, f"{folder} is being packed", "wait for it", wait=True):
        folder.mkdir(exist_ok=True)
        yield


def discard(paths: ShardPaths) -> None:
    """Remove the shards of a packing that failed, and the folder unless it holds other things."""
    for split in SPLITS:
        folder = paths.root / split
        for path in (*folder.glob("*.tar"), paths.index(split)):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()
    with suppress(OSError):
        paths.root.rmdir()


def warn_of_strays(paths: ShardPaths) -> None:
    """Name tars that the manifest does not: a reader of ``*.tar`` would take them for samples."""
    manifest = read_manifest(paths)
    for split, record in manifest.splits.items():
        count = len(record.shards)
        known = {paths.shard(split, number) for number in range(count)}
        for path in sorted(set((paths.root / split).glob("*.tar")) - known):
            log.warning("%s is not in the manifest and is not read; delete it", path)
