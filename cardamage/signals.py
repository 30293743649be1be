"""SIGUSR2, by which SLURM announces the end of a job: held back until a stage can stop in order.

SLURM sends it to every process of a job step, while their imports last too, and it would end each
of them at once. The program of a stage therefore blocks it first thing, and heeds it when its start
is on record: one that came in between is delivered then.
"""

from __future__ import annotations

import signal


def hold_usr2() -> None:
    """Block SIGUSR2 here, and in threads and processes that are started from here."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})


def heed_usr2() -> None:
    """Let this thread have SIGUSR2 again, also one that came before."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
