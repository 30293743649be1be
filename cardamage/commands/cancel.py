"""Stop runs.

What runs is asked to save and stop, and what waits is cancelled; submitting the run again resumes
it. `--kill` ends it at once. A run on SLURM can be cancelled from any machine of the cluster.
"""

import argparse
from collections.abc import Iterator, Sequence

from cardamage.commands.arguments import add_runs
from cardamage.launch.local.cancel import cancel_here, check_is_here
from cardamage.launch.slurm.cancel import cancel_on_slurm
from cardamage.launch.watching.overview import find_runs
from cardamage.launch.watching.record import read_launch
from cardamage.launch.watching.stopping import StopRequest
from cardamage.runs.paths import RunPaths


def configure(parser: argparse.ArgumentParser) -> None:
    add_runs(parser, "+")
    parser.add_argument("--kill", action="store_true", help="end it at once, saving nothing")
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds to wait (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    members, studies = find_runs(arguments.run, arguments.runs_dir)
    request = StopRequest.KILL if arguments.kill else StopRequest.STOP
    for each, done in cancel([*members, *studies], request, arguments.timeout):
        print(f"{each.root}: {done}")


def cancel(
    runs: Sequence[RunPaths], request: StopRequest, timeout_s: float
) -> Iterator[tuple[RunPaths, str]]:
    """Stop runs, here or on SLURM; yields each with what was done, when it has ended."""
    queued = {each: found for each in runs if (found := read_launch(each)) and found.jobs}
    here = [each for each in runs if each not in queued]
    for each in here:
        check_is_here(each)
    yield from cancel_on_slurm(queued, request, timeout_s).items()
    yield from cancel_here(here, request, timeout_s)
