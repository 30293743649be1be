"""The reports of a study."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from cardamage.config.choice import parse_pick
from cardamage.errors import RunError
from cardamage.report.comparison import comparison_report
from cardamage.report.load import RunResults, load_run
from cardamage.report.notices import Notice
from cardamage.report.page import address, publish
from cardamage.report.search import search_section
from cardamage.runs.directory import resolve
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.provenance import record_attempt
from cardamage.runs.stages import read_stage, running
from cardamage.runs.study import Comparison, StudyRecord, read_study
from cardamage.search.record import read_search, trial_name
from cardamage.system.files import sha256_of


def report_study(study: StudyPaths) -> Path:
    """Compare the runs of a study: all of them, and those that it wants compared further.

    Raises:
        UserError: a run is not trained or not tested, or the report cannot be written.
    """
    with running(study, "report") as output:
        record = read_study(study)
        search = read_search(study)
        names = record.runs
        if search:
            names = tuple(trial_name(study, trial) for trial in search.finalists())
        lacking = untested(study, replace(record, runs=names), least=1 if search else 2)
        record_attempt(study, "report")
        loaded, tested = {}, {}
        for name in (name for name in names if name not in lacking):
            experiment, run = resolve(study.beside(name).root)
            loaded[name] = load_run(run, experiment)
            split = loaded[name].experiment.test.split
            tested[name] = sha256_of(run.test_table(split))
        study.report.mkdir(exist_ok=True)
        pages = {}
        for comparison in record.compare:
            chosen, notes = pick_results(loaded, comparison)
            if len(chosen) > 1:
                folder = study.comparison(comparison.name)
                ways = [(f"all runs of {record.name}", "../index.html")]
                report = comparison_report(chosen, notes, folder=folder, others=ways)
                pages[comparison.name] = publish(report, folder)
        ways = [(name, f"{quote(name)}/index.html") for name in pages]
        notes = [_missing_from(name, why, study) for name, why in lacking.items()]
        runs = list(loaded.values())
        section = search_section(study, search) if search else None
        report = comparison_report(runs, notes, folder=study.report, others=ways, search=section)
        page = publish(report, study.report)
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
        if asked.run not in loaded:
            notes.append(Notice("warning", f"{asked} is missing: its run is not tested."))
            continue
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


def comparisons_with(run: RunPaths, folder: Path) -> list[tuple[str, str]]:
    """Name and address, as seen from a folder, of the reports of the studies a run belongs to.

    A study whose record cannot be read is left out.
    """
    root, found = run.root.resolve(), []
    for path in sorted(root.parent.glob(f"*/{StudyPaths(root).record.name}")):
        study = StudyPaths(path.parent)
        with suppress(RunError):
            record = read_study(study)
            if root.name in record.runs:
                found.append((record.name, address(study.report / "index.html", folder)))
    return found


def untested(study: StudyPaths, record: StudyRecord, *, least: int = 2) -> dict[str, str]:
    """The runs of a study that cannot be compared, each with the stage that is not done.

    Raises:
        RunError: fewer than ``least`` can be.
    """
    lacking = {}
    for name in record.runs:
        markers = (read_stage(study.beside(name), stage) for stage in STAGES[:3])
        if found := next((m for m in markers if m.state != "done"), None):
            why = f": {found.error}" if found.error else ""
            lacking[name] = f"{found.stage} {found.state}{why}"
    if lacking and len(record.runs) - len(lacking) < least:
        words = [f"{name} ({why})" for name, why in lacking.items()]
        named = ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")
        raise RunError(
            f"{len(lacking)} of {len(record.runs)} runs of {record.name} are not tested, so there "
            f"is nothing to compare: {named}; submit {shlex.quote(record.source)} again, which "
            f"runs what is missing"
        )
    return lacking


def _missing_from(name: str, why: str, study: StudyPaths) -> Notice:
    again = f"cardamage submit {shlex.quote(str(study.root))}"
    return Notice("warning", f"{name} is missing: {why}.", again)
