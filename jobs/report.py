"""Report on one run, or compare several: `python jobs/report.py RUN... --out DIR`.

RUN@N, RUN@best and RUN@last compare single checkpoints: `runs/e7@7 runs/e6@2 runs/e6@4`.
"""

from __future__ import annotations

from cardamage.signals import hold_usr2

if __name__ == "__main__":
    hold_usr2()  # before imports that take seconds

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from cardamage.command_line import add_runs_dir, split_overrides
from cardamage.config import Experiment
from cardamage.console import start_logging
from cardamage.errors import CLOSED, ConfigError, RunError, run_program
from cardamage.files import sha256_of
from cardamage.paths import STAGES, RunPaths, StudyPaths
from cardamage.picks import Pick, parse_pick
from cardamage.report.comparison import comparison_report
from cardamage.report.notices import Notice
from cardamage.report.page import publish
from cardamage.report.results import RunResults, load_run
from cardamage.report.run import run_report
from cardamage.runs import resolve
from cardamage.stages import read_stage, require, running
from cardamage.studies import Comparison, StudyRecord, is_study, read_study


def main() -> None:
    """Parse the command line and report."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Without --out the report is the run's report stage: training and testing have to "
        "be done. With --out elsewhere it shows how the run stands, also while it trains.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run directory or its YAML file, with @N, @best or @last a single checkpoint to "
        "compare; or the folder of one study; then key=value, as in test.select_by=loss",
    )
    parser.add_argument("--out", type=Path, help="folder of the report; default: RUN/report")
    add_runs_dir(parser)
    arguments = parser.parse_intermixed_args()
    start_logging()
    targets, overrides = split_overrides(arguments.runs)
    picks = [pick_of(target) for target in targets]
    if overrides and len(targets) > 1:
        raise ConfigError(
            f"{overrides[0]} cannot be laid over {len(targets)} runs at once; leave it out, or "
            f"name one run"
        )
    if len(targets) == 1 and is_study(targets[0]):
        if more := overrides or (["--out"] if arguments.out else []):
            raise ConfigError(
                f"{more[0]} is not for a study, which is reported as it was submitted, into its "
                f"own folder; leave it out, or name runs of it instead of {targets[0]}"
            )
        print(report_study(StudyPaths(targets[0])))
        return
    found = [find_run(Path(pick.run), overrides, arguments.runs_dir) for pick in picks]
    match picks:
        case [pick] if pick.checkpoint is None:
            ((experiment, run),) = found
            page = report_one(experiment, run, arguments.out)
        case _:
            page = report_several(found, picks, arguments.out)
    print(page)


def pick_of(target: Path) -> Pick:
    """What a word of the command line means; a folder or file of that name comes first.

    Raises:
        ConfigError: what stands behind the @ is no checkpoint.
    """
    return Pick(str(target)) if target.exists() else parse_pick(str(target))


def report_one(experiment: Experiment, run: RunPaths, out: Path | None) -> Path:
    """Report on one run; inside the run directory this is its report stage.

    Raises:
        UserError: the run cannot be reported on, or the report cannot be written.
    """
    if out is not None and out.resolve() != run.report.resolve():
        return publish(run_report(load_run(run, experiment)), make(out))
    with running(run, "report") as output:
        where = shlex.quote(str(run.root))
        require(run, "train", f"`accelerate launch jobs/train.py {where}`")
        require(run, "test", f"`python jobs/test.py {where}`")
        page = publish(run_report(load_run(run, experiment)), run.report)
        output["page"] = str(page)
        output["config"] = sha256_of(run.config)
        output["tested"] = sha256_of(run.test_table(experiment.test.split))
    return page


def report_several(
    runs: Sequence[tuple[Experiment, RunPaths]], picks: Sequence[Pick], out: Path | None
) -> Path:
    """Compare several runs, or single checkpoints.

    Raises:
        UserError: there is nowhere to write to, or a run cannot be reported on.
    """
    if out is None:
        raise ConfigError("a comparison of several runs needs a folder: add --out DIR")
    loaded: dict[Path, RunResults] = {}
    chosen: list[RunResults] = []
    for (experiment, run), pick in zip(runs, picks, strict=True):
        root = run.root.resolve()
        if root not in loaded:
            loaded[root] = load_run(run, experiment)
        results = loaded[root].at(pick.checkpoint)
        if any(other.best == results.best and other.run == results.run for other in chosen):
            raise ConfigError(f"{pick} is given twice; name each run and each checkpoint once")
        chosen.append(results)
    return publish(comparison_report(chosen), make(out))


def make(out: Path) -> Path:
    """Make the folder that a report outside its run goes to.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except CLOSED as error:
        raise ConfigError(
            f"--out {out} cannot be made ({error.strerror}); choose another place"
        ) from None
    return out


def report_study(study: StudyPaths) -> Path:
    """Compare the runs of a study: all of them, and those that it wants compared further.

    Raises:
        UserError: a run is not trained or not tested, or the report cannot be written.
    """
    with running(study, "report") as output:
        record = read_study(study)
        check_tested(study, record)
        loaded, tested = {}, {}
        for name in record.runs:
            experiment, run = resolve(study.run(name).root)
            loaded[name] = load_run(run, experiment)
            tested[name] = sha256_of(run.test_table(experiment.test.split))
        study.report.mkdir(exist_ok=True)
        pages = {}
        for comparison in record.compare:
            chosen, notes = pick_results(loaded, comparison)
            page = publish(comparison_report(chosen, notes), study.comparison(comparison.name))
            pages[comparison.name] = page
        page = publish(comparison_report(list(loaded.values())), study.report)
        output["page"] = str(page)
        output["tested"] = tested
        output["comparisons"] = {name: str(path) for name, path in pages.items()}
    return page


def pick_results(
    loaded: Mapping[str, RunResults], comparison: Comparison
) -> tuple[list[RunResults], list[Notice]]:
    """What a study's comparison compares, and where that is not what its file asks for.

    The file is written for the epochs in it. Where the runs were made shorter, the last epoch there
    is takes the place of one behind it, and is compared once.
    """
    chosen: list[RunResults] = []
    notes: list[Notice] = []
    for asked in map(parse_pick, comparison.runs):
        results = loaded[asked.run]
        pick = asked.within(results.experiment.train.epochs)
        if pick != asked:
            text = f"{pick} stands for {asked}, as {pick.run} ends with epoch {pick.checkpoint}."
            notes.append(Notice("note", text))
        found = results.at(pick.checkpoint)
        if all((other.run, other.best) != (found.run, found.best) for other in chosen):
            chosen.append(found)
        elif pick == asked:
            text = f"{asked} is epoch {found.best} again, which is compared once."
            notes.append(Notice("note", text))
    return chosen, notes


def check_tested(study: StudyPaths, record: StudyRecord) -> None:
    """Make sure that every run of a study is tested.

    Raises:
        RunError: some are not.
    """
    lacking = []
    for name in record.runs:
        states = ((stage, read_stage(study.run(name), stage).state) for stage in STAGES[:3])
        if found := next((f"{name} ({stage} {s})" for stage, s in states if s != "done"), None):
            lacking.append(found)
    if lacking:
        named = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        raise RunError(
            f"{len(lacking)} of {len(record.runs)} runs of {record.name} are not tested: {named}; "
            f"submit {shlex.quote(record.source)} again, which runs what is missing, or compare "
            f"the others with `python jobs/report.py RUN... --out DIR`"
        )


def find_run(target: Path, overrides: Sequence[str], runs_dir: Path) -> tuple[Experiment, RunPaths]:
    """The run that a word of the command line means, which must be there already.

    Raises:
        ConfigError: there is no such config.
        RunError: the config has not been run, or was run otherwise.
    """
    experiment, run = resolve(target, overrides, runs_dir)
    if not run.config.is_file():
        raise RunError(
            f"{run.root} does not exist, so {target} has not been run; "
            f"run `python launch/submit.py {shlex.quote(str(target))}`"
        )
    return experiment, run


if __name__ == "__main__":
    run_program(main)
