"""The stage ``report`` of a run, and comparisons of several."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cardamage.config.choice import Pick, parse_pick
from cardamage.config.experiment import Experiment
from cardamage.errors import CLOSED, ConfigError, RunError
from cardamage.report.card import model_card
from cardamage.report.comparison import comparison_report
from cardamage.report.load import RunResults, load_run
from cardamage.report.page import publish
from cardamage.report.run import run_report
from cardamage.report.standing import standing_report
from cardamage.report.study import comparisons_with
from cardamage.runs import lookup
from cardamage.runs.directory import as_tested, resolve
from cardamage.runs.paths import RunPaths, StudyPaths
from cardamage.runs.provenance import record_attempt
from cardamage.runs.stages import require, running
from cardamage.system.files import sha256_of, write_text


def pick_of(target: str) -> Pick:
    """What a word of the command line means; a folder or file of that name comes first.

    Raises:
        ConfigError: what stands behind the @ is no checkpoint.
    """
    return Pick(target) if Path(target).exists() else parse_pick(target)


def report_one(experiment: Experiment, run: RunPaths, out: Path | None) -> Path:
    """Report on one run; inside the run directory this is its report stage.

    Elsewhere, the report of a run that is not tested tells how it stands.

    Raises:
        UserError: the run cannot be reported on, or the report cannot be written.
    """
    if out is not None and out.resolve() != run.report.resolve():
        report = (
            run_report(load_run(run, experiment), comparisons_with(run, out))
            if run.test_table(as_tested(run, experiment).test.split).is_file()
            else standing_report(run, experiment)
        )
        return publish(report, make(out))
    with running(run, "report") as output:
        where = shlex.quote(str(run.root))
        require(run, "train", f"`cardamage train {where}`")
        require(run, "test", f"`cardamage test {where}`")
        record_attempt(run, "report")
        results = load_run(run, experiment)
        page = publish(run_report(results, comparisons_with(run, run.report)), run.report)
        write_text(run.model_card, model_card(results))
        output["page"] = str(page)
        output["config"] = sha256_of(run.config)
        split = as_tested(run, experiment).test.split
        output["tested"] = sha256_of(run.test_table(split))
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
    folder = make(out)
    return publish(comparison_report(chosen, folder=folder), folder)


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


def find_run(word: str, overrides: Sequence[str], runs_dir: Path) -> tuple[Experiment, RunPaths]:
    """The run that a word of the command line means, which must be there already.

    Raises:
        ConfigError: its YAML file is wrong.
        RunError: there is no such run, it is a study, or its YAML file says otherwise by now.
    """
    run = lookup.find_run(word, runs_dir)
    if isinstance(run, StudyPaths):
        raise RunError(f"{run.root} is a study; name it alone, or name runs of it")
    file = Path(word)
    return resolve(file if file.is_file() else run.root, overrides, runs_dir)
