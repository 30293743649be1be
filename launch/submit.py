"""Run experiments: `python launch/submit.py CONFIG... [key=value...]`.

Every config is checked first; then pack, train, test and report run on this machine, and the path
of the report is printed. The same command goes on where a stopped or failed run ended. Ctrl-C stops
after the current training step; pressed again it ends everything at once.
"""

from __future__ import annotations

import argparse
import sys

from cardamage.command_line import add_runs_dir, split_overrides
from cardamage.console import console, start_logging
from cardamage.errors import ExitStatus, run_program
from cardamage.paths import STAGES
from cardamage.provenance import provenance, write_provenance
from cardamage.runs import open_run
from cardamage.stages import read_stage
from launch.commands import Command, local_commands
from launch.local import Launch, Outcome, run_here
from launch.plan import RunPlan, choose_stages, make_plans
from launch.preflight import check
from launch.profiles import LOCAL, load_profile
from launch.record import new_launch
from launch.standing import standing


def main() -> None:
    """Parse the command line, check everything, then run or say what would run."""
    arguments = _parser().parse_intermixed_args()
    configs, overrides = split_overrides(arguments.config)
    profile = load_profile(arguments.cluster)
    stages = choose_stages(arguments.stages)
    plans = make_plans(configs, overrides, arguments.runs_dir, stages)
    for plan in plans:
        check(plan)
    commands = [local_commands(plan, profile) for plan in plans]
    if arguments.dry_run:
        for plan, of_plan in zip(plans, commands, strict=True):
            _describe(plan, of_plan, arguments.cluster)
        return
    start_logging()
    found = provenance()
    for plan in plans:
        open_run(plan.run, plan.experiment)
        write_provenance(plan.run, found)
    launches = [
        Launch(
            plan,
            of_plan,
            new_launch(
                profile.backend,
                arguments.cluster,
                sys.argv,
                {stage: command.arguments for stage, command in of_plan.items()},
            ),
        )
        for plan, of_plan in zip(plans, commands, strict=True)
    ]
    sys.exit(run_here(launches, console, _announce))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "config",
        nargs="+",
        metavar="CONFIG | key=value",
        help="YAML files or run directories, and overrides for all of them, as in optim.lr=3e-4",
    )
    parser.add_argument(
        "--cluster", default=LOCAL, metavar="NAME", help="a profile of configs/cluster/; local"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would run, and change nothing"
    )
    parser.add_argument(
        "--stages", metavar="LIST", help=f"only these, separated by commas: {','.join(STAGES)}"
    )
    add_runs_dir(parser)
    parser.add_argument(
        "--follow", action="store_true", help="show the progress; on this machine it always is"
    )
    return parser


def _describe(plan: RunPlan, commands: dict[str, Command], cluster: str) -> None:
    run = plan.run
    print(f"{plan.experiment.name}")
    print(f"  run directory: {run.root} ({'goes on' if run.config.is_file() else 'new'})")
    print(f"  cluster: {cluster}; the stages run on this machine, one after another")
    for number, job in enumerate(plan.jobs, start=1):
        after = f"after {', '.join(job.needs)}" if job.needs else "needs nothing"
        print(f"  {number}. {job.stage} ({after}): {standing(run, plan.experiment, job.stage)}")
        print(f"     {commands[job.stage]}")


def _announce(outcome: Outcome) -> None:
    run = outcome.run
    if outcome.exit_status == ExitStatus.DONE:
        page = read_stage(run, outcome.stage).output.get("page")
        print(f"{outcome.stage}: {page}" if page else f"{outcome.stage} of {run.root} is done")
        return
    label = "stopped" if outcome.exit_status == ExitStatus.STOPPED else "error"
    log = f"; its log is {path}" if (path := run.log(outcome.stage)).is_file() else ""
    remedy = "; the same command goes on" if label == "stopped" else ""
    print(
        f"{label}: {run.root}: stage {outcome.stage}: {outcome.error}{log}{remedy}", file=sys.stderr
    )


if __name__ == "__main__":
    run_program(main)
