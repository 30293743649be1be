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
from launch.overview import RunOverview, find_run, latest_stage, overview
from launch.record import read_launch

_POLL_S = 0.2
_ASK_SLURM_S = 3.0
_CHUNK_BYTES = 1 << 20


def main() -> None:
    """Parse the command line and print the log."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end without a word in `logs.py RUN | head`
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN", help="a run's or study's name or directory")
    parser.add_argument(
        "stage", nargs="?", metavar="STAGE", help=f"{', '.join(STAGES)}; default: the last that ran"
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on printing until the stage has ended"
    )
    add_runs_dir(parser)
    arguments = parser.parse_intermixed_args()
    run = find_run(arguments.run, arguments.runs_dir)
    if arguments.stage is not None and arguments.stage not in (known := _stages(run)):
        raise ConfigError(f'"{arguments.stage}" is no stage; there are: {", ".join(known)}')
    of_run = overview(run)
    stage = arguments.stage or latest_stage(of_run.stages)
    if stage is None and arguments.follow:
        stage = next((stage for stage in STAGES if is_to_come(of_run, stage)), None)
    if stage is None:
        raise RunError(
            f"{run.root}: no stage was started yet; start it: launch/submit.py {run.root}"
        )
    try:
        print_log(run, stage, follow=arguments.follow)
    except KeyboardInterrupt:
        if not arguments.follow:  # Ctrl-C is how one stops following
            raise


def _stages(run: RunPaths) -> list[str]:
    """The stages, and the parts of them that are SLURM jobs of their own, such as ``test.3``."""
    launch = read_launch(run)
    parts = [stage for stage in launch.jobs if stage not in STAGES] if launch else []
    return [*STAGES, *parts]


def print_log(run: RunPaths, stage: str, *, follow: bool) -> None:
    """Copy a stage's log to standard output as bytes, to its end or until the stage has ended.

    Raises:
        RunError: there is no log, and none is to come.
    """
    path, at = run.log(stage), 0
    watch = _Watch(run, stage)
    while True:
        more = follow and watch.is_to_come()  # asked first: what is written later is still read
        if path.is_file():
            at = _copy(path, at)
        elif not more:
            raise RunError(
                f"{run.root}: stage {stage} has no log; it was not started by submit yet"
            )
        if not more:
            return
        time.sleep(_POLL_S)


def is_to_come(of_run: RunOverview, stage: str) -> bool:
    """Whether a stage runs, waits for a launcher that is at work, or will be queued again."""
    of_stage = of_run.stages[stage.partition(".")[0]]
    if of_run.queue_problem:
        # SLURM may come back; only these are final without its word.
        return of_stage.state not in ("done", "failed", "cancelled")
    waits_for_launcher = of_stage.state == "waiting" and of_run.launcher in ("here", "elsewhere")
    return of_stage.goes_on or waits_for_launcher


class _Watch:
    """Tells whether a stage goes on, and asks SLURM less often than the files."""

    def __init__(self, run: RunPaths, stage: str) -> None:
        self._run, self._stage = run, stage
        self._asked, self._answer, self._said = 0.0, True, False

    def is_to_come(self) -> bool:
        launch = read_launch(self._run)
        pause_s = _ASK_SLURM_S if launch and launch.jobs else 0.0
        if time.monotonic() - self._asked >= pause_s:
            of_run = overview(self._run)
            self._answer = is_to_come(of_run, self._stage)
            self._asked = time.monotonic()
            self._say_what_it_waits_for(of_run)
        return self._answer

    def _say_what_it_waits_for(self, of_run: RunOverview) -> None:
        """Tell once why there is nothing to read yet."""
        of_stage = of_run.stages[self._stage.partition(".")[0]]
        if self._said or self._run.log(self._stage).is_file():
            return
        if of_run.queue_problem:
            print(of_run.queue_problem, file=sys.stderr)
            self._said = True
            return
        if of_stage.state != "queued" or not of_stage.job:
            return
        reason = f" ({of_stage.job.reason})" if of_stage.job.reason else ""
        print(f"{self._stage} is queued as job {of_stage.job_id}{reason}", file=sys.stderr)
        self._said = True


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


if __name__ == "__main__":
    run_program(main)
