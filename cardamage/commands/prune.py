"""List what is no longer needed, and remove it after asking.

That is: saved states of finished runs, copies of the code of runs that nobody works for, packed
datasets that no run of the folder reads, and runs that were cancelled before they had a checkpoint.
Checkpoints, scores and reports of other runs are never touched.
"""

import argparse
import sys

from cardamage.commands.arguments import add_runs
from cardamage.errors import plain
from cardamage.launch.watching.overview import all_runs, find_runs
from cardamage.launch.watching.prune import KINDS, check_kinds, find_leftovers


def configure(parser: argparse.ArgumentParser) -> None:
    add_runs(parser, "*")
    parser.add_argument(
        "--what", metavar="LIST", help=f"only these, separated by commas: {','.join(KINDS)}"
    )
    parser.add_argument("--yes", action="store_true", help="remove without asking")


def run(arguments: argparse.Namespace) -> None:
    kinds, runs_dir = check_kinds(arguments.what), arguments.runs_dir
    everything = all_runs(runs_dir)
    named = find_runs(arguments.run, runs_dir)[0] if arguments.run else everything
    if arguments.run:  # datasets belong to all runs
        kinds = tuple(kind for kind in kinds if kind != "shards")
    there = list(dict.fromkeys([*everything, *named]))
    found = find_leftovers(named, there, kinds)
    if not found:
        print(f"nothing in {runs_dir.absolute()} can be removed")
        return
    for each in found:
        print(plain(f"{_size(each.size):>9}  {each.kind:<9}  {each.path}  ({each.why})"))
    total = _size(sum(each.size for each in found))
    if not arguments.yes:
        if not sys.stdin.isatty():
            print(f"{total} in all; nothing was removed: add --yes")
            return
        if input(f"remove these {len(found)}, {total} in all? [y/N] ").strip().lower() != "y":
            print("nothing was removed")
            return
    for each in found:
        each.remove()
    print(f"removed {len(found)}, {total} in all")


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{-(-count // 1000)} kB"
