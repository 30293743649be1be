"""What a stage printed: `python launch/logs.py RUN [STAGE]`; `-f` follows until the stage ends."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from cardamage.command_line import add_runs_dir
from cardamage.errors import ConfigError, RunError, run_program
from cardamage.paths import STAGES, RunPaths
from launch.overview import find_run, latest_stage, overview

_POLL_S = 0.2
_CHUNK_BYTES = 1 << 20


def main() -> None:
    """Parse the command line and print the log."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end without a word in `logs.py RUN | head`
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN", help="a run's name, or its directory")
    parser.add_argument(
        "stage", nargs="?", metavar="STAGE", help=f"{', '.join(STAGES)}; default: the last that ran"
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on printing until the stage has ended"
    )
    add_runs_dir(parser)
    arguments = parser.parse_intermixed_args()
    if arguments.stage is not None and arguments.stage not in STAGES:
        raise ConfigError(f'"{arguments.stage}" is no stage; there are: {", ".join(STAGES)}')
    run = find_run(arguments.run, arguments.runs_dir)
    stage = arguments.stage or latest_stage(overview(run).stages)
    if stage is None and arguments.follow and is_to_come(run, STAGES[0]):
        stage = STAGES[0]
    if stage is None:
        raise RunError(
            f"{run.root}: no stage was started yet; start it: launch/submit.py {run.root}"
        )
    try:
        print_log(run, stage, follow=arguments.follow)
    except KeyboardInterrupt:
        if not arguments.follow:  # Ctrl-C is how one stops following
            raise


def print_log(run: RunPaths, stage: str, *, follow: bool) -> None:
    """Copy a stage's log to standard output as bytes, to its end or until the stage has ended.

    Raises:
        RunError: there is no log, and none is to come.
    """
    path, at = run.log(stage), 0
    while True:
        more = follow and is_to_come(run, stage)  # asked first: what is written later is still read
        if path.is_file():
            at = _copy(path, at)
        elif not more:
            raise RunError(
                f"{run.root}: stage {stage} has no log; it was not started by submit yet"
            )
        if not more:
            return
        time.sleep(_POLL_S)


def is_to_come(run: RunPaths, stage: str) -> bool:
    """Whether a stage runs, or waits for a launcher that is at work."""
    of_run = overview(run)
    state = of_run.stages[stage].state
    return state == "running" or (state == "waiting" and of_run.launcher is not None)


def _copy(path: Path, start: int) -> int:
    """Print a file from ``start``, in bytes; returns where it ended."""
    with path.open("rb") as stream:
        stream.seek(start)
        while chunk := stream.read(_CHUNK_BYTES):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return stream.tell()


if __name__ == "__main__":
    run_program(main)
