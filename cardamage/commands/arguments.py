"""What command lines have in common: CONFIG, key=value, --runs-dir."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cardamage.config.experiment import Experiment
from cardamage.errors import ConfigError
from cardamage.runs.lookup import RUNS_DIR
from cardamage.runs.paths import SPLITS, RunPaths
from cardamage.system.console import log


def add_experiment(parser: argparse.ArgumentParser, example: str) -> None:
    """Add ``config``, ``overrides``, as in ``example``, and ``--runs-dir``."""
    parser.add_argument("config", help="a YAML file or a run, by name or path")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"as in {example}")
    add_runs_dir(parser)


def add_runs(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Add ``run``, a RUN or several, and ``--runs-dir``."""
    parser.add_argument(
        "run", nargs=nargs, metavar="RUN", help="a run's or study's name or directory"
    )
    add_runs_dir(parser)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The option that chooses a run's checkpoint: its best unless another is named."""
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="best|last|N",
        help="the best by the validation split (default), the last, or that of epoch N",
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="photos a forward pass (%(default)s)"
    )


def check_at_least_one(what: str, **options: int) -> None:
    """Refuse options, by their names in Python, that ask for fewer than one of something."""
    for name, value in options.items():
        if value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: at least one {what}")


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs-dir",
        type=Path,
        default=RUNS_DIR,
        metavar="DIR",
        help="where run directories lie; default: %(default)s",
    )


def painting(config: Path | None) -> dict[str, Any]:
    """What an experiment says of how masks are painted, as options of audits and previews.

    Args:
        config: a YAML file or a run directory; None gives no options.
    """
    from cardamage.config.loading import load

    if config is None:
        return {}
    # A YAML file need not agree with a run of its name.
    data = load(RunPaths(config).config if config.is_dir() else config).data
    return {
        "classes": data.class_groups,
        "drop": data.drop,
        "boxes": data.boxes,
        "paint_order": data.paint_order,
        "skip_broken": data.skip_broken,
        "image_size": data.image_size,
        "annotations": data.annotations,
        "may_lack": data.may_lack,
    }


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Configs or runs, and overrides, told apart by the equals sign; a file's name may have one."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    targets = [word for word in words if word not in overrides]
    if not targets:
        raise ConfigError(f"only {overrides[0]} is given; name a YAML file or a run too")
    return targets, overrides


def resolved(arguments: argparse.Namespace) -> tuple[Experiment, RunPaths]:
    """The experiment and the run that :func:`add_experiment`'s arguments name."""
    from cardamage.runs.directory import resolve
    from cardamage.runs.lookup import locate

    target = locate(arguments.config, arguments.runs_dir)
    return resolve(target, arguments.overrides, arguments.runs_dir)


def is_done(run: RunPaths, experiment: Experiment, stage: str) -> bool:
    """Whether a stage has nothing to do, which is then said; answered before torch is imported."""
    from cardamage.runs.missing import missing_stages

    if stage in missing_stages(run, experiment):
        return False
    log.info("%s: stage %s is done; nothing to do", run.root, stage)
    return True


def add_annotations(parser: argparse.ArgumentParser) -> None:
    """Add ``--annotations``, which chooses annotation files by split."""
    parser.add_argument(
        "--annotations",
        nargs="+",
        default=[],
        metavar="SPLIT=FILE",
        help="annotation files, where several could be meant, as in train=train/coco.json",
    )


def annotations_by_split(words: Sequence[str]) -> dict[str, str]:
    """What :func:`add_annotations` was given."""
    found = {}
    for word in words:
        split, equals, path = word.partition("=")
        if split not in SPLITS or not equals or not path:
            raise ConfigError(
                f"--annotations {word}: give {', '.join(f'{split}=FILE' for split in SPLITS)}"
            )
        found[split] = path
    return found
