"""``rung.json``: up to which epoch a run of a search is trained before it is compared with others.

A run at a rung is one that was interrupted there: its schedule spans all of its epochs, and what is
saved goes on at the exact step once the file says a later epoch or is gone.
"""

import json

from cardamage.config.experiment import Experiment
from cardamage.errors import RunError
from cardamage.runs.paths import RunPaths
from cardamage.system.files import write_json


def last_epoch(run: RunPaths, experiment: Experiment) -> int:
    """The epoch that training ends with for now.

    Raises:
        RunError: ``rung.json`` is damaged.
    """
    rung = read_rung(run)
    return experiment.train.epochs if rung is None else min(rung, experiment.train.epochs)


def read_rung(run: RunPaths) -> int | None:
    """The epoch that a run stops at for now; None where nothing stops it.

    Raises:
        RunError: the file is damaged.
    """
    try:
        return int(json.loads(run.rung.read_text(encoding="utf-8"))["epoch"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        raise RunError(f"{run.rung} is damaged; submit the search of {run.root} again") from None


def set_rung(run: RunPaths, experiment: Experiment, epoch: int) -> None:
    """Have a run stop at an epoch; at its last one nothing is left to stop."""
    if epoch >= experiment.train.epochs:
        run.rung.unlink(missing_ok=True)
    elif read_rung(run) != epoch:
        write_json(run.rung, {"epoch": epoch})
