"""Kill a small run again and again and compare it with one left alone.

Pack, train and test run as real processes and get real SIGKILLs; after each the same stage is
started again. The weights, tables and shards have to come out as without any kill, to the bit.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    os.environ["OMP_NUM_THREADS"] = "1"  # NumPy starts threads when imported: none outlives a fork

from rich.console import Console

from benchmarks.drill.comparison import difference
from benchmarks.drill.kills import Budget, Kill, allot, markdown, screen
from benchmarks.drill.starts import preload
from benchmarks.drill.trial import Broken, Outcome, Subject, Trial
from cardamage.config import loading
from cardamage.errors import CardamageError, ConfigError, run_program
from cardamage.system.console import log, start_logging
from cardamage.system.files import write_text
from cardamage.system.processes import count_cores

JOBS = Path(__file__).resolve().parents[2] / "jobs"
CONFIG = JOBS.parent / "configs" / "drill.yaml"


def main() -> None:
    """Parse the command line, drill, and print the table."""
    arguments = parse_arguments()
    experiment = loading.load(arguments.config, arguments.overrides)
    subject = Subject(JOBS, arguments.config, tuple(arguments.overrides), experiment)
    start_logging()
    # On a GPU the same config need not give the same bytes, killed or not.
    os.environ.update(CUDA_VISIBLE_DEVICES="", ACCELERATE_USE_CPU="true")
    folder = Path(tempfile.mkdtemp(prefix="drill-", dir=arguments.work))
    began = time.monotonic()
    try:
        outcomes = drill(subject, arguments.kills, arguments.processes, arguments.seed, folder)
    except Broken as broken:
        raise CardamageError(f"{broken}, before any kill; its files are in {folder}") from None
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    Console(width=120).print(screen(kills))
    if arguments.out:
        write_text(arguments.out, page(kills, len(outcomes), time.monotonic() - began, arguments))
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    if problems:
        raise CardamageError(
            f"{len(problems)} of {len(outcomes)} runs did not come out as the undisturbed one: "
            f"{problems[0]}"
        )
    shutil.rmtree(folder)


def parse_arguments() -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: a number on it cannot be.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "config", type=Path, nargs="?", default=CONFIG, help="a YAML file; default: %(default)s"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in train.epochs=2")
    parser.add_argument("--kills", type=int, default=20, metavar="K", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    parser.add_argument(
        "--processes",
        default="1,2",
        metavar="N,N",
        help="how many processes train and test together, in turn; default: %(default)s",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="where the runs lie meanwhile; default: /tmp"
    )
    arguments = parser.parse_intermixed_args()
    if arguments.kills < 1:
        raise ConfigError(f"--kills {arguments.kills}: at least one has to be made")
    words = arguments.processes.split(",")
    if not all(word.isdecimal() and int(word) for word in words) or len(set(words)) < len(words):
        raise ConfigError(f'--processes "{arguments.processes}": give different numbers, as in 1,2')
    arguments.processes = [int(word) for word in words]
    if arguments.work and not arguments.work.is_dir():
        raise ConfigError(f"--work {arguments.work} is no folder; make it, or choose another")
    return arguments


def drill(
    subject: Subject, kills: int, processes: Sequence[int], seed: int, folder: Path
) -> list[Outcome]:
    """Make trials until there were so many kills; the folders of those that differ are kept.

    Raises:
        Broken: a stage failed that was left alone.
    """
    random = Random(seed)
    budget = allot(kills, processes)
    outcomes: list[Outcome] = []
    for on in processes:
        log.info("on %d: an undisturbed run, then one of forks", on)
        cold = Trial(subject, on, folder / f"{on}-undisturbed").undisturbed(cold=True)
        preload()
        warm = Trial(subject, on, folder / f"{on}-forked").undisturbed(cold=False)
        for stage, expected in cold.results.items():
            if problem := difference(warm.results[stage], expected):
                raise Broken(f"{stage} on {on} processes: of two undisturbed runs, {problem}")
        while any(left for (_, of), left in budget.items() if of == on):
            root = folder / f"{on}-{len(outcomes)}"
            outcome = Trial(subject, on, root).disturbed(budget, random, {True: cold, False: warm})
            outcomes.append(outcome)
            if outcome.problem is None:
                shutil.rmtree(root)
            log_outcome(outcome, root, budget)
    return outcomes


def log_outcome(outcome: Outcome, root: Path, budget: Budget) -> None:
    """Say how a trial ended."""
    counts = Counter(kill.stage for kill in outcome.kills)
    killed = ", ".join(f"{stage} {count} times" for stage, count in counts.items()) or "nothing"
    if outcome.problem is None:
        log.info("killed %s: equal; %d kills to go", killed, budget.total())
        for name in outcome.left:
            log.info("left half written: %s", name)
    else:
        log.error("killed %s: %s; see %s", killed, outcome.problem, root)


def page(kills: Sequence[Kill], runs: int, seconds: float, arguments: argparse.Namespace) -> str:
    """The table and how it came about, in Markdown."""
    on = " and ".join(map(str, arguments.processes))
    return (
        f"{len(kills)} kills in {runs} runs of `{arguments.config.name}` on {on} processes, seed "
        f"{arguments.seed}: {seconds / 60:.1f} minutes on {count_cores()} cores, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"PyTorch {version('torch')}.\n\n{markdown(kills)}"
    )


if __name__ == "__main__":
    run_program(main)
