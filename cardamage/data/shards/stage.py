"""The stage ``pack`` of a run, and of others that pack alike."""

from collections.abc import Sequence
from pathlib import Path

from cardamage.config.dataset import SYNTHETIC
from cardamage.config.experiment import Experiment
from cardamage.data.curation.synthetic import synthetic_source
from cardamage.data.shards.pack import Packing, make, prepare
from cardamage.errors import ConfigError
from cardamage.runs.directory import open_run, resolve
from cardamage.runs.paths import RunPaths
from cardamage.runs.provenance import record_attempt
from cardamage.runs.stages import NothingToDo, copy_to, read_stage, running
from cardamage.system.console import EventLog


def pack_stage(
    experiment: Experiment,
    run: RunPaths,
    *,
    others: Sequence[RunPaths] = (),
    check: bool = False,
    workers: int | None = None,
) -> Path:
    """Pack a run's dataset, where that is not done; returns the folder of its shards.

    Args:
        others: runs that pack alike: their markers become this one's.
        check: read every shard that is there, and make those again that were damaged.
        workers: processes; None for one on each core.

    Raises:
        UserError: the config or the dataset is wrong, or the run is in use.
    """
    before = read_stage(run, "pack")
    try:
        with running(run, "pack") as output:
            open_run(run, experiment)
            packing = _prepare(experiment, check=check, workers=workers)
            batch_size, samples = experiment.train.batch_size, packing.samples["train"]
            # One run's mistake is not the others'; training refuses it as well.
            if batch_size > samples and not others:
                raise ConfigError(
                    f"train.batch_size is {batch_size}, but the train split has {samples} images; "
                    f"set train.batch_size to {samples} or less, or use more of the dataset"
                )
            if not packing.complete:
                record_attempt(run, "pack")
            folder = make(packing, events=EventLog(run.events), workers=workers)
            output["shards"] = str(folder.resolve())  # read from other folders too
            output["splits"] = list(packing.samples)
            if packing.complete and (before.state, before.output) == ("done", output):
                raise NothingToDo
    finally:
        copy_to(others, run, "pack")
    return folder


def packs_alike(experiment: Experiment, folder: Path) -> RunPaths:
    """The run of a directory whose shards are the same as an experiment's.

    Raises:
        ConfigError: it packs otherwise.
    """
    other, run = resolve(folder)
    mine, others = experiment.data.packing(), other.data.packing()
    if differing := [k for k in {**mine, **others} if mine.get(k) != others.get(k)]:
        key = differing[0]
        given, other_s = (getattr(e.data, key) for e in (experiment, other))
        raise ConfigError(
            f"--also {folder}: packs otherwise (data.{key}: {other_s}, not {given}); "
            f"pack it by itself"
        )
    return run


def _prepare(experiment: Experiment, *, check: bool, workers: int | None) -> Packing:
    """What an experiment's ``data`` section asks to be packed; draws a synthetic source first."""
    data = experiment.data
    shards_dir = Path(data.shards_dir)
    if data.source == SYNTHETIC:
        drawing = data.synthetic
        source = synthetic_source(
            shards_dir, images=drawing.images, size=drawing.size, seed=drawing.seed
        )
    else:
        source = Path(data.source)
    return prepare(
        source,
        classes=data.class_groups,
        drop=data.drop,
        image_size=data.image_size,
        subset=data.subset,
        subset_by=data.subset_by,
        image_format=data.image_format,
        boxes=data.boxes,
        paint_order=data.paint_order,
        skip_broken=data.skip_broken,
        shards_dir=shards_dir,
        annotations=data.annotations,
        shares=data.split.shares if data.split else None,
        seed=data.split.seed if data.split else data.folds.seed if data.folds else 0,
        valid_share=data.valid_share,
        healthy=Path(data.healthy) if data.healthy else None,
        storage=data.storage,
        folds=(data.folds.of, data.folds.fold) if data.folds else None,
        check=check,
        workers=workers,
    )
