"""How runs stand: all runs of the folder when none is named."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cardamage.commands.arguments import add_runs
from cardamage.errors import ConfigError, did_you_mean
from cardamage.launch.watching.overview import (
    RunOverview,
    StageOverview,
    all_runs,
    find_runs,
    overviews,
)
from cardamage.launch.watching.table import STYLES, charts, lines_below, table_of
from cardamage.runs.attempts import cost, queued, total_usage
from cardamage.runs.lookup import run_names
from cardamage.runs.paths import RunPaths, StudyPaths
from cardamage.runs.study import is_study

_SORTS = ("name", "state", "best", "epoch", "left")
_EVERY_S = 2.0  # between two looks of --watch
_FILE_WIDTH = 200  # columns where the output is no terminal, so that nothing is cut


def configure(parser: argparse.ArgumentParser) -> None:
    add_runs(parser, "*")
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object a run")
    parser.add_argument(
        "--wide", action="store_true", help="every stage, speed, job and place, as in a file"
    )
    parser.add_argument("--watch", action="store_true", help="keep it up to date until Ctrl-C")
    parser.add_argument("--state", metavar="LIST", help="only runs in these states: running,failed")
    parser.add_argument("--sort", choices=_SORTS, default="name", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end without a word in `status | head`
    if arguments.watch and not sys.stdout.isatty():
        raise ConfigError("--watch needs a terminal; leave it out, or use --json in a loop")

    def look() -> tuple[list[RunOverview], list[StudyPaths]]:
        runs, studies = _asked_for(arguments.run, arguments.runs_dir)
        return _ordered(overviews(runs), arguments.state, arguments.sort), studies

    found, studies = look()
    if arguments.json:
        print(json.dumps([_as_json(of_run) for of_run in found], indent=2))
    elif arguments.watch:
        _watch(look, is_wide=arguments.wide)
    elif found:
        _print(found, studies, is_wide=arguments.wide)
    elif arguments.state and run_names(arguments.runs_dir):
        print(f"no run is {arguments.state.replace(',', ' or ')}")
    else:
        print(
            f"there are no runs in {arguments.runs_dir.absolute()}; go to the folder you submitted "
            f"from, or name theirs with --runs-dir"
        )


def _asked_for(words: list[str], runs_dir: Path) -> tuple[list[RunPaths], list[StudyPaths]]:
    if words:
        return find_runs(words, runs_dir)
    studies = [StudyPaths(runs_dir / name) for name in run_names(runs_dir)]
    return all_runs(runs_dir), [study for study in studies if is_study(study.root)]


def _watch(
    look: Callable[[], tuple[list[RunOverview], list[StudyPaths]]], *, is_wide: bool
) -> None:
    """Show the table until Ctrl-C; of one too long for the terminal its beginning."""

    def shown() -> Group:
        found, studies = look()
        below = [Text.from_markup(line) for line in lines_below(found)]
        moment = Text(f"{datetime.now().astimezone():%H:%M:%S}, Ctrl-C ends", style="dim")
        width = live.console.width
        curve = None if len(found) < 2 else 8 if width < 100 else 24
        table = table_of(found, studies, is_wide=is_wide, curve=curve)
        curves = charts(found[0], width) if len(found) == 1 else ()
        return Group(table, *curves, *below, moment)

    live = Live(auto_refresh=False, screen=True)
    with suppress(KeyboardInterrupt), live:
        live.update(shown(), refresh=True)
        while True:
            time.sleep(_EVERY_S)
            live.update(shown(), refresh=True)


def _as_json(of_run: RunOverview) -> dict[str, Any]:
    """One run for a machine to read; times are UTC, durations seconds."""
    best, speed = of_run.best, of_run.speed
    where = ("launcher", "host", "cluster", "partition")
    as_they_are = ("seconds_left", *where, "problem", "queue_problem")
    return {
        "run": of_run.run.root.name,
        "directory": str(of_run.run.root),
        "stages": {name: _stage_as_json(stage) for name, stage in of_run.stages.items()},
        "attempts": [asdict(attempt) for attempt in of_run.attempts],
        "seconds": cost(of_run.attempts),
        "queued_seconds": queued(of_run.attempts),
        "usage": asdict(total_usage(of_run.attempts)),
        "epoch": of_run.epoch,
        "epochs": of_run.epochs,
        "best": best and asdict(best),
        "speed": speed and {"per_second": speed[0], "unit": speed[1]},
        **{name: getattr(of_run, name) for name in as_they_are},
    }


def _stage_as_json(stage: StageOverview) -> dict[str, Any]:
    record, job = stage.record, stage.job
    of_record = ("attempts", "started", "ended", "host", "pid", "exit_status")
    return {
        "state": stage.state,
        **{name: getattr(record, name) for name in of_record},
        "job_id": stage.job_id,
        "error": stage.error,
        "log": str(stage.log) if stage.log else None,
        "job": job and {**asdict(job), "reason": job.reason or None, "nodes": job.nodes or None},
    }


def _print(overviews: list[RunOverview], studies: list[StudyPaths], *, is_wide: bool) -> None:
    is_terminal = sys.stdout.isatty()
    console = Console(width=None if is_terminal else _FILE_WIDTH, highlight=False)
    console.print(table_of(overviews, studies, is_wide=is_wide or not is_terminal))
    for line in lines_below(overviews):
        console.print(line, soft_wrap=True)


def _state_of(of_run: RunOverview) -> str:
    """The state that a run is filtered and sorted by: of the first stage that is not done."""
    states = [str(stage.state) for stage in of_run.stages.values() if stage.state != "done"]
    return states[0] if states else "done"


def _ordered(found: list[RunOverview], wanted: str | None, key: str) -> list[RunOverview]:
    """The runs whose state is among ``wanted``, sorted by ``key``, the best and the last first."""
    states = {state.strip() for state in wanted.split(",")} if wanted else None
    if unknown := sorted((states or set()) - STYLES.keys()):
        raise ConfigError(
            f'--state: "{unknown[0]}" is unknown{did_you_mean(unknown[0], STYLES)}; allowed: '
            f"{', '.join(STYLES)}"
        )
    kept = [of_run for of_run in found if states is None or _state_of(of_run) in states]
    match key:
        case "state":
            order = list(STYLES)
            return sorted(kept, key=lambda of_run: order.index(_state_of(of_run)))
        case "best":
            return sorted(kept, key=_rank)
        case "epoch":
            return sorted(kept, key=lambda of_run: -of_run.epoch)
        case "left":
            far = float("inf")
            return sorted(kept, key=lambda o: far if o.seconds_left is None else o.seconds_left)
        case _:
            return kept


def _rank(of_run: RunOverview) -> tuple[bool, str, float]:
    """Runs with a score first, those of one score together, the best of them first."""
    if (best := of_run.best) is None:
        return True, "", 0.0
    return False, best.score, best.value if best.score == "loss" else -best.value
