"""What a stage printed; `-f` follows until the stage ends."""

import argparse
import signal
import sys
import time
from pathlib import Path

from cardamage.commands.arguments import add_runs
from cardamage.errors import ConfigError, RunError, plain
from cardamage.launch.watching.overview import (
    RunOverview,
    find_runs,
    latest_stage,
    overview,
    overviews,
)
from cardamage.launch.watching.record import read_launch
from cardamage.launch.watching.tail import last_words
from cardamage.runs.lookup import find_run
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths

_POLL_S = 0.2
_ASK_SLURM_S = 3.0
_CHUNK_BYTES = 1 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    add_runs(parser)
    parser.add_argument(
        "stage", nargs="?", metavar="STAGE", help=f"{', '.join(STAGES)}; default: the last that ran"
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="keep printing until the stage has ended"
    )


def run(arguments: argparse.Namespace) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end without a word in `logs RUN | head`
    paths, stage = find_run(arguments.run, arguments.runs_dir), arguments.stage
    launch = read_launch(paths)
    # Parts of a stage that are SLURM jobs of their own, such as test.3, have a log too.
    known = list(dict.fromkeys([*STAGES, *(launch.jobs if launch else ())]))
    if stage is not None and stage not in known:
        raise ConfigError(f'"{stage}" is no stage; there are: {", ".join(known)}')
    of_run = overview(paths)
    stage = stage or latest_stage(of_run.stages)
    if stage is None and arguments.follow:
        stage = next((stage for stage in STAGES if _is_to_come(of_run, stage)), None)
    if stage is None and isinstance(paths, StudyPaths):
        _print_last_words(paths)
        return
    if stage is None:
        raise RunError(
            f"{paths.root}: no stage was started yet; start it: cardamage submit {paths.root}"
        )
    try:
        _print_log(paths, stage, follow=arguments.follow)
    except KeyboardInterrupt:
        if not arguments.follow:  # Ctrl-C is how one stops following
            raise


def _print_last_words(study: StudyPaths) -> None:
    """Of each run of a study the stage that runs or ran last, its state and its last line."""
    for of_run in overviews(find_runs([str(study.root)], study.root.parent)[0]):
        stage, name = latest_stage(of_run.stages), of_run.run.root.name
        if stage is None:
            print(f"{name}: not started yet")
            continue
        log = of_run.run.log(stage)
        words = last_words(log, 0) if log.is_file() else ""
        print(plain(f"{name}: {stage} {of_run.stages[stage].state}: {words or 'nothing printed'}"))


def _print_log(run: RunPaths, stage: str, *, follow: bool) -> None:
    """Copy a stage's log to standard output as bytes, to its end or until the stage has ended."""
    path, at, more, ask_at, said = run.log(stage), 0, follow, 0.0, ""
    while True:
        if follow and time.monotonic() >= ask_at:  # before reading: what is written later counts
            of_run = overview(run)
            more = _is_to_come(of_run, stage)
            is_on_slurm = any(of_stage.job_id for of_stage in of_run.stages.values())
            ask_at = time.monotonic() + (_ASK_SLURM_S if is_on_slurm else 0.0)
            if not said and not path.is_file() and (said := _what_it_waits_for(of_run, stage)):
                print(said, file=sys.stderr)
        if path.is_file():
            at = _copy(path, at)
        elif not more:
            raise RunError(
                f"{run.root}: stage {stage} has no log; it was not started by submit yet"
            )
        if not more:
            return
        time.sleep(_POLL_S)


def _is_to_come(of_run: RunOverview, stage: str) -> bool:
    """Whether a stage runs, waits for a launcher that is at work, or will be queued again."""
    of_stage = of_run.stages[stage.partition(".")[0]]
    if of_run.queue_problem:
        # SLURM may come back; only these are final without its word.
        return of_stage.state not in ("done", "failed", "cancelled")
    waits_for_launcher = of_stage.state == "waiting" and of_run.launcher in ("here", "elsewhere")
    return of_stage.is_active or waits_for_launcher


def _what_it_waits_for(of_run: RunOverview, stage: str) -> str:
    """Why there is nothing to read yet."""
    of_stage = of_run.stages[stage.partition(".")[0]]
    if of_run.queue_problem or of_stage.state != "queued" or not of_stage.job:
        return of_run.queue_problem or ""
    reason = f" ({of_stage.job.reason})" if of_stage.job.reason else ""
    return f"{stage} is queued as job {of_stage.job_id}{reason}"


def _copy(path: Path, start: int) -> int:
    """Print a file from ``start``, in bytes; returns where it ended.

    A terminal is shown escape sequences, such as those in a file's name, instead of obeying them.
    """
    plain = sys.stdout.isatty()
    with path.open("rb") as stream:
        stream.seek(start)
        while chunk := stream.read(_CHUNK_BYTES):
            sys.stdout.buffer.write(chunk.replace(b"\x1b", rb"\x1b") if plain else chunk)
        sys.stdout.buffer.flush()
        return stream.tell()
