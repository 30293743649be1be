"""Stop runs: `python launch/cancel.py RUN...`.

What runs is asked to save and stop, and what waits is cancelled; submitting the run again goes on.
`--kill` ends it at once. A run on SLURM can be cancelled from any machine of the cluster.
"""

from __future__ import annotations

import argparse
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from cardamage.command_line import add_runs_dir
from cardamage.errors import CardamageError, ExitStatus, RunError, run_program
from cardamage.paths import STAGES, RunPaths
from cardamage.processes import is_alive
from cardamage.stages import is_lost, now, read_stage, write_stage
from launch.cancel_jobs import SlurmRun, cancel_on_slurm
from launch.local import cancel_waiting
from launch.overview import find_runs
from launch.record import LaunchRecord, is_elsewhere, is_here, read_launch, tagged
from launch.stage_process import send
from launch.stop import Request, ask

_POLL_S = 0.1


def main() -> None:
    """Parse the command line and stop each run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", nargs="+", metavar="RUN", help="a run's or study's name or directory"
    )
    parser.add_argument("--kill", action="store_true", help="end it at once, saving nothing")
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds to wait (%(default)s)"
    )
    add_runs_dir(parser)
    arguments = parser.parse_intermixed_args()
    members, studies = find_runs(arguments.run, arguments.runs_dir)
    runs = [*members, *studies]
    launches = {run: read_launch(run) for run in runs}
    queued = [SlurmRun(run, found) for run, found in launches.items() if found and found.jobs]
    here = [run for run in runs if run not in {one.run for one in queued}]
    for run in here:
        check_is_here(run)
    request = Request.KILL if arguments.kill else Request.STOP
    for run, done in cancel_on_slurm(queued, request, arguments.timeout).items():
        print(f"{run.root}: {done}")
    asked = [run for run in here if is_here(read_launch(run))]
    for run in asked:  # all of them first, or the next would begin meanwhile
        ask(run, request)
    for run in here:
        done = cancel(run, request, arguments.timeout, was_asked=run in asked)
        print(f"{run.root}: {done}")


def check_is_here(run: RunPaths) -> None:
    """Make sure that what works for a run can be reached from this machine.

    Raises:
        RunError: it runs on another one.
    """
    launch, here = read_launch(run), socket.gethostname()
    hosts = {r.host for stage in STAGES if (r := read_stage(run, stage)).state == "running"}
    if launch and is_elsewhere(launch):
        hosts.add(launch.host)
    for host in sorted(host for host in hosts if host and host != here):
        raise RunError(f"{run.root} runs on {host}, and this is {here}; cancel it there")


def cancel(run: RunPaths, request: Request, timeout_s: float, *, was_asked: bool = False) -> str:
    """Stop a run and wait until nothing of it runs; returns what was done, in words.

    Args:
        run: the run.
        request: how urgently.
        timeout_s: so long may it take.
        was_asked: whether its launcher was asked already, and so may be done with it.

    Raises:
        CardamageError: it had not stopped after ``timeout_s`` seconds.
    """
    launch = read_launch(run)
    planned = list(launch.stages) if launch else []
    if is_here(launch):
        ask(run, request)
        _await(
            run, lambda: not (run.cancel_request.is_file() and is_here(read_launch(run))), timeout_s
        )
    elif _at_work(run, launch):
        if request is Request.STOP:
            _signal(_at_work(run, launch), signal.SIGTERM)
            _await(run, lambda: not _at_work(run, launch), timeout_s)
        else:
            _await(run, lambda: not _signal(_at_work(run, launch), signal.SIGKILL), timeout_s)
        _settle_lost(run)
        cancel_waiting(run, planned)
    elif not cancel_waiting(run, planned) and not was_asked:
        return "nothing of it runs or waits"
    states = {stage: read_stage(run, stage).state for stage in planned or STAGES}
    return ", ".join(f"{stage} {state}" for stage, state in states.items())


def _at_work(run: RunPaths, launch: LaunchRecord | None) -> list[int]:
    """The processes of this machine that work for a run whose launcher is gone.

    The main process of the stage alone, as long as it is there: it tells the others.
    """
    for stage in STAGES:
        record = read_stage(run, stage)
        if record.state == "running" and record.pid and is_alive(record.pid, record.born):
            return [record.pid]
    return tagged(launch.tag) if launch else []


def _signal(pids: list[int], number: signal.Signals) -> list[int]:
    for pid in pids:
        send(pid, number)
    return pids


def _await(run: RunPaths, is_over: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_over():
        if time.monotonic() > deadline:
            raise CardamageError(
                f"{run.root} was asked to stop, but has not after {timeout_s:g} s; "
                f"wait, or end it at once: python launch/cancel.py --kill {run.root}"
            )
        time.sleep(_POLL_S)


def _settle_lost(run: RunPaths) -> None:
    """Put on record that stages were stopped whose process left no word."""
    for stage in STAGES:
        record = read_stage(run, stage)
        if is_lost(record):
            stopped = replace(record, state="stopped", exit_status=ExitStatus.STOPPED, ended=now())
            write_stage(run, replace(stopped, error="ended at once", error_class="stopped"))


if __name__ == "__main__":
    run_program(main)
