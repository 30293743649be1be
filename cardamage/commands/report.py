"""Report on one run, or compare several.

RUN@N, RUN@best and RUN@last compare single checkpoints: runs/e7@7 runs/e6@2 runs/e6@4.
"""

import argparse
from pathlib import Path

from cardamage.commands.arguments import add_runs_dir, split_overrides
from cardamage.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Without --out the report is the run's report stage: training and testing have to be done. "
        "With --out elsewhere it shows how the run stands, also while it trains."
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a run directory or its YAML file, with @N, @best or @last a single checkpoint to "
        "compare; or the folder of one study; then key=value, as in test.select_by=loss",
    )
    parser.add_argument("--out", type=Path, help="folder of the report; default: RUN/report")
    parser.add_argument(
        "--index",
        action="store_true",
        help="write index.html over all runs of --runs-dir: scores, cost, links to their reports",
    )
    add_runs_dir(parser)


def run(arguments: argparse.Namespace) -> None:
    from cardamage.report.index import write_index
    from cardamage.report.stage import find_run, pick_of, report_one, report_several
    from cardamage.report.study import report_study
    from cardamage.runs import lookup
    from cardamage.runs.paths import StudyPaths

    if arguments.index:
        if more := [*arguments.runs, *(["--out"] if arguments.out else [])]:
            raise ConfigError(f"--index is over all runs of --runs-dir; leave out {more[0]}")
        print(write_index(arguments.runs_dir))
        return
    if not arguments.runs:
        raise ConfigError("name a run to report on, or --index for a page over all of them")
    targets, overrides = split_overrides(arguments.runs)
    picks = [pick_of(target) for target in targets]
    if overrides and len(targets) > 1:
        raise ConfigError(
            f"{overrides[0]} cannot be laid over {len(targets)} runs at once; leave it out, or "
            f"name one run"
        )
    study = lookup.find_run(picks[0].run, arguments.runs_dir) if len(picks) == 1 else None
    if isinstance(study, StudyPaths):
        if more := overrides or (["--out"] if arguments.out else []):
            raise ConfigError(
                f"{more[0]} is not for a study, which is reported as it was submitted, into its "
                f"own folder; leave it out, or name runs of it instead of {targets[0]}"
            )
        print(report_study(study))
        return
    found = [find_run(pick.run, overrides, arguments.runs_dir) for pick in picks]
    if len(picks) == 1 and picks[0].checkpoint is None:
        print(report_one(*found[0], arguments.out))
    else:
        print(report_several(found, picks, arguments.out))
