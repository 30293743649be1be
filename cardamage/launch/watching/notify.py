"""Telling people that a run has ended or hung, by what ``notify`` in its config says.

Whoever starts a run's stages calls this: the launcher on this machine, and on SLURM the batch job
that the run ended with. What goes wrong here is said and changes nothing else.
"""

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

from cardamage.config import loading
from cardamage.config.experiment import Experiment
from cardamage.errors import UserError
from cardamage.runs.checkpoints import best_epoch, rule
from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import read_table
from cardamage.system.console import log

End = Literal["done", "failed", "stuck"]
"""``stuck``: it had hung, and is queued again from what it saved."""

_TIMEOUT_S = 60


def tell(run: RunPaths, state: End, stage: str, error: str = "") -> None:
    """Tell how a run ended: with ``stage``, by ``error`` unless it is done. Raises nothing.

    Nobody is told of a study: its runs are told of, each by its own config.
    """
    if not run.config.is_file():
        return
    try:
        experiment = loading.load(run.config)
        if (notify := experiment.notify) is None:
            return
        words = message(run, experiment, state, stage, error)
        if notify.command:
            _run(notify.command, run, state, words)
        if notify.url:
            _send(notify.url, f"{experiment.name} {state}", words)
    except Exception as refused:  # noqa: BLE001 - whatever it is, the run has ended already
        text = " ".join(str(refused).split())[:200]
        log.warning("notify: nobody was told: %s: %s", type(refused).__name__, text)


def message(run: RunPaths, experiment: Experiment, state: End, stage: str, error: str) -> str:
    """What there is to tell, on one line."""
    if state == "failed":
        return f"{experiment.name}: {stage} failed: {error or 'it did not say why'}"
    if state == "stuck":
        return f"{experiment.name}: {stage} was stuck and is queued again: {error}"
    select_by, best = experiment.test.select_by, ""
    with suppress(UserError, OSError, KeyError):
        rows = read_table(run.metrics)
        if (epoch := best_epoch(rows, select_by)) is not None:
            (row,) = (row for row in rows if row["epoch"] == epoch)
            best = f" best is epoch {epoch}, {rule(select_by)} {row[f'val_{select_by}']:.3f};"
    return f"{experiment.name} is done:{best} report in {run.report / 'index.html'}"


def _run(command: str, run: RunPaths, state: End, words: str) -> None:
    told: Mapping[str, str] = {
        "CARDAMAGE_RUN": str(run.root),
        "CARDAMAGE_STATE": state,
        "CARDAMAGE_MESSAGE": words,
    }
    result = subprocess.run(  # noqa: S602 - experiment files are trusted, and people expect a shell
        command,
        shell=True,
        env={**os.environ, **told},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if result.returncode:
        said = result.stderr.strip().rpartition("\n")[2]
        log.warning("notify.command ended with %d: %s", result.returncode, said)


def _send(url: str, title: str, words: str) -> None:
    import apprise  # noqa: PLC0415 - an extra

    sender = apprise.Apprise()
    if not sender.add(os.path.expandvars(url)):
        log.warning("notify.url is none that apprise knows; see its list of services")
    elif not sender.notify(title=title, body=words):
        log.warning("notify.url: the message could not be sent")
