"""Every benchmark of a claim, one after the other; then the table of benchmarks/README.md.

    make bench                                      all that need neither a GPU nor SLURM
    python -m benchmarks.run --only loading ranks   these; the other rows stay as they were
    python -m benchmarks.run --table                no measuring: write the table again

Results are kept in benchmarks/results.jsonl, one line each. What a benchmark says goes to the
terminal as well. One that fails leaves its rows out, and the exit status says so.
"""

import argparse
import json
import subprocess
import sys
import time

from benchmarks.drawn import environment
from benchmarks.pairs import MARK, ROOT, Result

WITHOUT_GPU = (
    "starting",
    "packing",
    "auditing",
    "loading",
    "training",
    "ranks",
    "resuming",
    "testing",
    "predicting",
    "many_runs",
)
ON_SLURM = ("submitting",)
RESULTS, README = ROOT / "benchmarks" / "results.jsonl", ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- table: written by benchmarks/run.py -->", "<!-- end of the table -->"


def main() -> None:
    """Measure, keep, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = WITHOUT_GPU + ON_SLURM
    parser.add_argument("--only", nargs="+", choices=known, default=WITHOUT_GPU, metavar="NAME")
    parser.add_argument("--table", action="store_true", help="only write the table again")
    arguments = parser.parse_args()
    failed = []
    for name in () if arguments.table else arguments.only:
        began = time.monotonic()
        lines = measure(name)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        if lines is None:
            failed.append(name)
        else:
            keep(name, lines)
    write_table()
    if failed:
        sys.exit(f"these failed, see above: {', '.join(failed)}")


def measure(name: str) -> list[str] | None:
    """The results of a benchmark as JSON; None where it failed."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    found = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith(MARK):
                found.append(line.removeprefix(MARK).strip())
            else:
                print(line, end="", flush=True)
    return None if process.returncode else found


def keep(name: str, lines: list[str]) -> None:
    """Replace a benchmark's results by new ones; all stay in the order of their names above."""
    kept: dict[str, list[str]] = {}
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else ():
        kept.setdefault(json.loads(line)["benchmark"], []).append(line)
    kept[name] = [json.dumps({"benchmark": name, **json.loads(line)}) for line in lines]
    order = [each for each in WITHOUT_GPU + ON_SLURM if each in kept]
    RESULTS.write_text("".join(f"{line}\n" for each in order for line in kept[each]))


def write_table() -> None:
    """Write the results into benchmarks/README.md."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    lines = [
        "| claim | against | bar | result | spread | measured | |",
        "|---|---|---|---:|---|---|---|",
    ]
    machines: dict[str, None] = {}
    for row in rows:
        benchmark = row.pop("benchmark")
        result = Result(**row)
        machines[f"{result.when}, {result.machine.partition(';')[0]}"] = None
        lines.append(line_of(result, benchmark))
    text = "\n".join([*lines, "", f"Measured on {'; '.join(machines)}."])
    head, _, rest = README.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    README.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")
    met = sum(Result(**row).verdict == "met" for row in rows)
    print(f"{met} of {len(rows)} bars met; {README.relative_to(ROOT)} has the table")


def line_of(result: Result, benchmark: str) -> str:
    """A result's row."""
    low, high = min(result.values), max(result.values)
    unit = "x" if result.unit == "x" else f" {result.unit}"
    sides = ""
    if result.other is not None:
        sides = f"{result.ours:.4g} to {result.other:.4g} {result.measured_in}"
    sign = {">=": "≥", "<=": "≤"}[result.sign]
    verdict = result.verdict if result.verdict == "met" else f"**{result.verdict}**"
    return (
        f"| [{result.claim}]({benchmark}.py) | {result.against} | {sign} {result.bar:g}{unit} | "
        f"{result.median:.3g}{unit} | {low:.3g} to {high:.3g}, {len(result.values)} | {sides} | "
        f"{verdict} |"
    )


if __name__ == "__main__":
    main()
