"""Run experiments: `python launch/submit.py CONFIG... [key=value...]`.

Every config is checked first. Where there is a SLURM, pack, train, test and report are queued as
jobs that wait for each other, and their ids are printed. Elsewhere, and with `--cluster local`,
they run on this machine, and the path of the report is printed: there Ctrl-C stops after the
current training step, and pressed again ends everything at once. The same command goes on where a
stopped or failed run ended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cardamage.command_line import add_runs_dir, split_overrides
from cardamage.console import console, start_logging
from cardamage.errors import ConfigError, ExitStatus, run_program
from cardamage.paths import STAGES, RunPaths
from cardamage.provenance import provenance, write_provenance
from cardamage.runs import open_run
from cardamage.stages import read_stage
from cardamage.studies import is_study, open_study
from launch.commands import Command, local_commands
from launch.continuation import check_continued
from launch.local import Launch, Outcome, run_here
from launch.outline import outline
from launch.plan import Node, Plan, RunPlan, choose_stages, make_plan
from launch.preflight import check
from launch.profiles import LocalProfile, SlurmProfile, default_profile, load_profile
from launch.record import check_free, new_launch
from launch.standing import standing


def main() -> None:
    """Parse the command line, check everything, then run or say what would run."""
    arguments = _parser().parse_intermixed_args()
    configs, overrides = split_overrides(arguments.config)
    if arguments.max_running is not None and arguments.max_running < 1:
        raise ConfigError(f"--max-running {arguments.max_running}: at least one has to run")
    profile = load_profile(arguments.cluster)
    stages = choose_stages(arguments.stages)
    plan = make_plan(configs, overrides, arguments.runs_dir, stages)
    absent = check((*plan.plans, *plan.comparisons), data_may_come=arguments.dry_run)
    check_continued(plan, may_wait=isinstance(profile, SlurmProfile))
    for study in plan.studies:
        print(study)
    if arguments.dry_run:
        for line in outline(plan):
            print(f"  {line}")
        for source in absent:
            print(f"warning: {source} does not exist yet, so it is not checked", file=sys.stderr)
    match profile:
        case _ if not plan.plans and not plan.comparisons:
            return
        case LocalProfile():
            _run_here(plan, profile, arguments)
        case SlurmProfile():
            _queue(plan, profile, arguments)


def _run_here(plan: Plan, profile: LocalProfile, arguments: argparse.Namespace) -> None:
    """Run the stages on this machine, or say what would run."""
    plans = (*plan.plans, *plan.comparisons)
    commands = [local_commands(each, profile) for each in plans]
    if arguments.dry_run:
        for each, of_plan in zip(plans, commands, strict=True):
            _describe(plan, each, of_plan, arguments.cluster)
        return
    start_logging()
    found = provenance()
    for each in plans:
        check_free(each.run)  # before anything of it is written
    for each in plan.plans:
        open_run(each.run, each.experiment)
        write_provenance(each.run, found)
    for study in plan.studies:
        open_study(study.study, study.record)
        write_provenance(study.study, found)
    launches = [
        Launch(
            each,
            of_plan,
            new_launch(
                profile.backend,
                arguments.cluster,
                sys.argv,
                {stage: command.arguments for stage, command in of_plan.items()},
            ),
        )
        for each, of_plan in zip(plans, commands, strict=True)
    ]
    sys.exit(run_here(launches, console, _announce))


def _queue(plan: Plan, profile: SlurmProfile, arguments: argparse.Namespace) -> None:
    """Submit the stages to SLURM, or print what would be submitted."""
    # What needs submitit, which takes 0.2 s to import.
    from launch import follow, on_slurm  # noqa: PLC0415

    if arguments.dry_run:
        on_slurm.describe(plan, profile, arguments.cluster, arguments.max_running)
        return
    start_logging()
    submitted = on_slurm.submit(plan, profile, arguments.cluster, arguments.max_running)
    if arguments.follow and submitted.plans:
        sys.exit(follow.follow(submitted.plans, console))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "config",
        nargs="+",
        metavar="CONFIG | key=value",
        help="YAML files of experiments, sweeps or studies, or directories of runs or studies; and "
        "overrides for all of them, as in optim.lr=3e-4",
    )
    parser.add_argument(
        "--cluster",
        default=default_profile(),
        metavar="NAME",
        help="a profile of configs/cluster/, or a file that ends in .yaml; default here: "
        "%(default)s",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would run, and change nothing"
    )
    parser.add_argument(
        "--stages", metavar="LIST", help=f"only these, separated by commas: {','.join(STAGES)}"
    )
    add_runs_dir(parser)
    parser.add_argument(
        "--max-running",
        type=int,
        metavar="N",
        help="on SLURM: of several runs so many may run at once",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="show the progress until the end; on this machine it always is shown",
    )
    return parser


def _describe(plan: Plan, of_run: RunPlan, commands: dict[str, Command], cluster: str) -> None:
    run = of_run.run
    is_new = not (run.config.is_file() or is_study(run.root))
    print(f"{of_run.experiment.name}")
    print(f"  run directory: {run.root} ({'new' if is_new else 'goes on'})")
    print(f"  cluster: {cluster}; the stages run on this machine, one after another")
    for number, job in enumerate(of_run.jobs, start=1):
        after = _in_words(run, plan.needs(of_run, job.stage))
        print(f"  {number}. {job.stage} ({after}): {standing(run, of_run.experiment, job.stage)}")
        print(f"     {commands[job.stage]}")


def _in_words(run: RunPaths, needs: Sequence[Node]) -> str:
    words = [stage if run == other else f"{stage} of {other.root}" for other, stage in needs]
    if len(words) > 3:
        words = [f"{words[0]}, {words[1]}, ... and {words[-1]}, {len(words)} in all"]
    return f"after {', '.join(words)}" if words else "needs nothing"


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
