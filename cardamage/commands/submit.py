"""Run experiments, sweeps and studies.

Every config is checked first. Where there is a SLURM, pack, train, test and report are queued as
jobs that wait for each other, and their ids are printed. Elsewhere, and with `--cluster local`,
they run on this machine, and the path of the report is printed: there Ctrl-C stops after the
current training step, and pressed again ends everything at once. The same command resumes where a
stopped or failed run ended.
"""

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from cardamage.commands.arguments import add_runs_dir, split_overrides
from cardamage.errors import ConfigError, ExitStatus
from cardamage.launch.local.backend import Ending, Launch, run_here
from cardamage.launch.local.commands import count_gpus, local_commands
from cardamage.launch.local.search import run_rounds
from cardamage.launch.planning.forecast import describe, outline, problems
from cardamage.launch.planning.graph import Plan, RunPlan
from cardamage.launch.planning.networks import prepare_networks
from cardamage.launch.planning.preflight import plan_checked
from cardamage.launch.planning.profiles import LocalProfile, SlurmProfile
from cardamage.launch.watching.record import check_free, new_launch
from cardamage.runs.directory import open_run
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import open_study
from cardamage.search.decide import open_search
from cardamage.system.console import console


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        nargs="+",
        metavar="CONFIG | key=value",
        help="YAML files of experiments, sweeps or studies, or directories of runs or studies; and "
        "overrides for all of them, as in optim.lr=3e-4",
    )
    parser.add_argument(
        "--cluster",
        metavar="NAME",
        help="local, slurm, or the path of your own profile, which ends in .yaml; default: that of "
        "CARDAMAGE_CLUSTER, else slurm where a cluster answers, else local",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would run, and change nothing"
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="in a dry run also the exact commands, or the batch scripts",
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


def run(arguments: argparse.Namespace) -> None:
    configs, overrides = split_overrides(arguments.config)
    if arguments.max_running is not None and arguments.max_running < 1:
        raise ConfigError(f"--max-running {arguments.max_running}: at least one has to run")
    plan, arguments.cluster, profile, absent = plan_checked(
        configs,
        overrides,
        arguments.runs_dir,
        stages=arguments.stages,
        cluster=arguments.cluster,
        data_may_come=arguments.dry_run,
    )
    prepare_networks([*plan.plans, *_to_be_drawn(plan)], fetch=not arguments.dry_run)
    for study in plan.studies:
        print(study)
    for line in plan.nothing_to_do():
        print(line)
    if arguments.dry_run:
        lines = [
            *(f"  {line}" for line in outline(plan)),
            *(f"would be refused: {p}" for p in absent),
        ]
        print(*lines, sep="\n", end="\n" if lines else "")
    match profile:
        case _ if not plan.plans and not plan.comparisons:
            return
        case LocalProfile() if arguments.dry_run:
            _describe(plan, profile, verbose=arguments.verbose)
        case LocalProfile():
            sys.exit(_run_rounds(plan, profile, arguments))
        case SlurmProfile():
            _queue(plan, profile, arguments)


def _to_be_drawn(plan: Plan) -> Iterator[RunPlan]:
    """Runs that stand for what a search may yet draw: their networks have to be there as well."""
    for study in plan.studies:
        if study.search and study.search.goes_on():
            for _, experiment in study.search.settings.variants():
                yield RunPlan(experiment, study.study.beside(experiment.name), ("train",))


def _describe(plan: Plan, profile: LocalProfile, *, verbose: bool) -> None:
    """Say what would run on this machine."""
    for each in (*plan.plans, *plan.comparisons):
        commands = local_commands(each, profile) if verbose else {}
        print(*describe(plan, each, commands, count_gpus()), sep="\n")


def _run_rounds(plan: Plan, profile: LocalProfile, arguments: argparse.Namespace) -> ExitStatus:
    """Run everything on this machine, searches round by round."""

    def run_plan(plan: Plan) -> ExitStatus:
        return _run_here(plan, profile, arguments)

    def plan_again(searches: Sequence[Path], given_up: Collection[RunPaths]) -> Plan:
        found, *_ = plan_checked(
            [*map(str, searches)],
            [],
            arguments.runs_dir,
            stages=arguments.stages,
            cluster=arguments.cluster,
            given_up=given_up,
        )
        print(*found.studies, sep="\n")
        return found

    return run_rounds(plan, run_plan, plan_again)


def _run_here(plan: Plan, profile: LocalProfile, arguments: argparse.Namespace) -> ExitStatus:
    """Run the stages on this machine; a search is compared once there is nothing to train."""
    early = [s.comparison for s in plan.studies if s.search and any(p.stages for p in s.plans)]
    plans = [*plan.plans, *(each for each in plan.comparisons if each not in early)]
    commands, gpus = [local_commands(each, profile) for each in plans], count_gpus()
    for each in plans:
        for problem in problems(each.experiment, None, gpus=gpus):
            raise ConfigError(f"{each.experiment.name}: {problem}")
        check_free(each.run)  # before anything of it is written
    for each in plan.plans:
        open_run(each.run, each.experiment)
    for study in plan.studies:
        open_study(study.study, study.record)
        if study.search:
            open_search(study.study, study.search)
    launches = []
    for each, of_plan in zip(plans, commands, strict=True):
        started = {stage: command.arguments for stage, command in of_plan.items()}
        record = new_launch("local", arguments.cluster, sys.argv, started)
        launches.append(Launch(each, of_plan, record))
    return run_here(launches, console, _announce)


def _queue(plan: Plan, profile: SlurmProfile, arguments: argparse.Namespace) -> None:
    """Submit the stages to SLURM, or print what would be submitted."""
    from cardamage.launch.slurm import follow, submission
    from cardamage.launch.slurm.plan import describe as describe_jobs
    from cardamage.launch.slurm.plan import in_words, plan_submission
    from cardamage.launch.slurm.rounds import is_slot_job
    from cardamage.launch.slurm.script import render
    from cardamage.launch.slurm.site import site_or_defaults

    given = plan, profile, arguments.cluster
    if arguments.dry_run:
        site = site_or_defaults()
        planned = plan_submission(*given, site, max_running=arguments.max_running)
        for line in describe_jobs(planned):
            print(line)
        scripts = planned.jobs if arguments.verbose else ()
        for number, job in enumerate(scripts, start=1):
            print(f"\n# {number}. {in_words(job)}\n# {job.script}")
            print(render(job, profile).rstrip())
        return
    submitted, jobs = submission.submit(*given, sys.argv, max_running=arguments.max_running)
    for each in submitted.plans:
        ids: dict[str, str] = {}
        for stage, queued in jobs[each.run.root].items():
            array = queued.partition("_")[0]  # of a search's many slots the first of each
            ids.setdefault(array if is_slot_job(stage) else queued, f"{stage} {queued}")
        print(f"{each.experiment.name}: {', '.join(ids.values())}")
    if arguments.follow and submitted.plans:
        sys.exit(follow.follow(submitted.plans, console))


def _announce(run: RunPaths, ending: Ending) -> None:
    stage, status, error = ending
    if status == ExitStatus.DONE:
        page = read_stage(run, stage).output.get("page")
        print(f"{stage}: {page}" if page else f"{stage} of {run.root} is done")
        return
    label = "stopped" if status == ExitStatus.STOPPED else "error"
    log = f"; its log is {path}" if (path := run.log(stage)).is_file() else ""
    remedy = "; the same command resumes" if label == "stopped" else ""
    print(f"{label}: {run.root}: stage {stage}: {error}{log}{remedy}", file=sys.stderr)
