"""Copies of tensors in memory that is used again and again, for a thread that writes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
