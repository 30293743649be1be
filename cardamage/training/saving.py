"""Saving while training continues: it stops for a copy, and a thread writes that to disk.

One write is under way at a time. A save that is due meanwhile waits for its turn; one that cannot
wait, at the end of an epoch or when asked to stop, waits for the write before. A write that fails
ends training at the next save, and the next step asks for that save.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from cardamage.config.experiment import Experiment
from cardamage.errors import CardamageError, Stopped
from cardamage.runs.paths import RunPaths
from cardamage.system.console import log
from cardamage.system.files import write_json
from cardamage.training.finite import FiniteCheck
from cardamage.training.outputs import EpochClock, publish_epoch
from cardamage.training.state import KEPT, State, Training, remove_old_states, write_state
from cardamage.training.stopping import Request, StopRequests


class Saver:
    """Saves a training run when it is time, asked for, or an epoch has ended.

    Leaving it waits for the last write and raises what went wrong with it.

    Args:
        resumed_from: the state this start resumed from, which stays until two newer ones are there.
    """

    def __init__(
        self,
        *,
        run: RunPaths,
        experiment: Experiment,
        training: Training,
        finite: FiniteCheck,
        requests: StopRequests,
        resumed_from: Path | None,
    ) -> None:
        self._run, self._experiment, self._training = run, experiment, training
        self._finite, self._requests = finite, requests
        self._kept = [resumed_from] if resumed_from else []
        self._snapshot = Snapshot(training.accelerator.device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._writing: Future[None] | None = None
        self._is_main = training.accelerator.is_main_process
        self.clock: EpochClock | None = None
        """The clock of the epoch that is trained."""

    def __enter__(self) -> Self:
        self._saved_at, self._saved_step = time.monotonic(), self._training.step
        return self

    def heed(self) -> None:
        """Save if it is due or asked for; every process calls this, between two steps.

        Raises:
            Stopped: a process was asked to; the state is on disk.
            CardamageError: nothing sound can be saved, or the last save failed.
        """
        request = self._requests.agreed(save_due=self._is_due())
        if request is not Request.NOTHING:
            self.save()
        if request is Request.STOP:
            self.wait()
            raise Stopped(
                f"saved at step {self._training.step}, in epoch {len(self._training.rows) + 1}"
            )

    def save(self, *, epoch_ended: bool = False) -> None:
        """Copy what training changes and have it written; every process takes part.

        Args:
            epoch_ended: the state is that after an epoch, so its checkpoint and the metrics are
                published behind it.

        Raises:
            CardamageError: a loss was not finite, or the write before failed.
        """
        tally = self._training.tally.gather(self._training.accelerator)
        self._finite.losses(tally)
        self.wait()
        if self._is_main:
            state = self._snapshot.take(self._training.state(tally))
            epoch_s = round(self.clock.seconds, 3) if self.clock and not epoch_ended else 0.0
            self._writing = self._thread.submit(
                self._write, state, epoch_ended=epoch_ended, epoch_s=epoch_s
            )
        self._saved_at, self._saved_step = time.monotonic(), self._training.step

    def wait(self) -> None:
        """Return when what was saved is on disk; every process takes part.

        Raises:
            CardamageError: on processes other than the main one, for what that one raises.
        """
        error = self._writing.exception() if self._writing else None
        self._writing = None
        failed = [str(error) if error else ""]
        if self._training.accelerator.num_processes > 1:
            broadcast_object_list(failed)
        if error:
            raise error
        if failed[0]:
            raise CardamageError(f"process 0 could not save: {failed[0]}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.wait()
            elif self._writing and (failed := self._writing.exception()):
                log.error("the state could not be saved: %s", failed)
        finally:
            self._thread.shutdown()

    def _is_due(self) -> bool:
        """Whether this process would save now; the main one alone knows."""
        settings, step = self._experiment.train, self._training.step
        if not self._is_main or (self._writing and not self._writing.done()):
            return False
        if self._writing and self._writing.exception():
            return True
        minutes, steps = settings.save_minutes, settings.save_steps
        is_late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return (is_late and step > self._saved_step) or (
            steps is not None and step - self._saved_step >= steps
        )

    def _write(self, state: State, *, epoch_ended: bool, epoch_s: float) -> None:
        """What the thread does. A kill between any two lines leaves what the next start mends."""
        self._snapshot.wait()
        self._finite.weights(state["weights"], state["step"])
        path = self._run.state(state["step"])
        write_state(path, state)
        self._kept = [*(kept for kept in self._kept if kept != path), path][-KEPT:]
        remove_old_states(self._run, self._kept)
        progress = {"epoch": len(state["rows"]), "step": state["step"]}
        write_json(self._run.progress, {**progress, "epoch_seconds": epoch_s})
        if epoch_ended:
            outcome = state["ema"] if "ema" in state else state["weights"]
            publish_epoch(self._run, self._experiment, state["rows"], outcome)


class Snapshot:
    """Copies nested values, their tensors into CPU memory of its own.

    Page-locked where the tensors lie on a GPU: the copy is then enqueued behind the work that made
    them and in front of the work that changes them, and nobody waits but :meth:`wait`.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._memory: dict[tuple[Any, ...], Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, value: Any) -> Any:
        """A copy of ``value``; it overwrites the one before."""
        copy = self._copy(value, ())
        if self._on_gpu:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        return copy

    def wait(self) -> None:
        """Return when the last copy is complete; called before its tensors are read."""
        if self._copied is not None:
            self._copied.synchronize()

    def _copy(self, value: Any, place: tuple[Any, ...]) -> Any:
        match value:
            case Tensor():
                return self._memory_for(value, place).copy_(value.detach(), non_blocking=True)
            case dict():
                return {key: self._copy(inner, (*place, key)) for key, inner in value.items()}
            case list():
                return [self._copy(inner, (*place, at)) for at, inner in enumerate(value)]
            case _:
                return value

    def _memory_for(self, tensor: Tensor, place: tuple[Any, ...]) -> Tensor:
        memory = self._memory.get(place)
        if memory is None or memory.shape != tensor.shape or memory.dtype != tensor.dtype:
            memory = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._on_gpu)
            self._memory[place] = memory
        return memory
