"""Measures what a stage's process takes while it works: memory, use of its GPU, energy."""

import resource
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from accelerate import Accelerator

from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.usage import Usage, write_usage
from cardamage.system.console import log

_POWERCAP = Path("/sys/class/powercap")
_SAMPLE_S = 1.0  # RAPL's counters wrap after about a minute at the soonest
_WRITE_EVERY = 30  # samples


class Meter:
    """Measures from entering to leaving, and keeps the usage file of this process up to date.

    Args:
        stage: as its marker is named; the marker says when the attempt began.
    """

    def __init__(self, run: RunPaths, stage: str, accelerator: Accelerator) -> None:
        self._run, self._stage, self._process = run, stage, accelerator.process_index
        self._started = read_stage(run, stage).started or ""
        device = accelerator.device
        self._gpu = _gpu(device) if device.type == "cuda" else None
        self._packages = [_Rapl(path) for path in _rapl_counters()]
        self._samples, self._use = 0, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="meter", daemon=True)
        if accelerator.is_main_process:
            unread = [] if self._packages else ["of processors (RAPL)"]
            if device.type == "cuda" and self._gpu is None:
                unread.append("of GPUs, nor their use (NVML; `pip install nvidia-ml-py`)")
            if unread:
                log.info("not measured here: energy %s", " and ".join(unread))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._write()

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            for package in self._packages:
                package.read()
            if self._gpu:
                self._use += self._gpu.use()
            self._samples += 1
            if self._samples % _WRITE_EVERY == 1:
                self._write()

    def _write(self) -> None:
        on_gpu = torch.cuda.is_available()
        usage = Usage(
            memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # Linux: kB
            gpu_memory_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
            gpu_use=self._use / self._samples if self._gpu and self._samples else None,
            gpu_joules=self._gpu.joules() if self._gpu else None,
            cpu_joules=sum(p.read() for p in self._packages) if self._packages else None,
        )
        place = {"started": self._started, "host": socket.gethostname()}
        write_usage(self._run, self._stage, self._process, **place, usage=usage)


@dataclass
class _Gpu:
    """``use`` is its use now, 0..1; ``joules`` its energy since this was made, None without one."""

    use: Callable[[], float]
    joules: Callable[[], float | None]


def _gpu(device: torch.device) -> _Gpu | None:
    """This process's GPU as NVML knows it; None where it cannot be asked."""
    try:
        import pynvml  # noqa: PLC0415 - of nvidia-ml-py, where it is installed

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetUtilizationRates(handle)
    except Exception:  # noqa: BLE001 - NVML has many errors, and none of them counts
        return None
    begun: float | None = None
    with suppress(Exception):  # cards before Volta count no energy
        begun = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)

    def joules() -> float | None:
        if begun is None:
            return None
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - begun) / 1000

    return _Gpu(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, joules)


class _Rapl:
    """The energy of one package of processors since this was made; its counter wraps."""

    def __init__(self, counter: Path) -> None:
        self._counter = counter / "energy_uj"
        self._range = int((counter / "max_energy_range_uj").read_text())
        self._last, self._joules = int(self._counter.read_text()), 0.0

    def read(self) -> float:
        """Joules so far; to be called at least once a minute."""
        with suppress(OSError, ValueError):
            now = int(self._counter.read_text())
            self._joules += ((now - self._last) % self._range) / 1e6
            self._last = now
        return self._joules


def _rapl_counters() -> list[Path]:
    """The counters of whole packages that this user may read; often root alone may."""
    readable = []
    for path in sorted(_POWERCAP.glob("intel-rapl:*")):
        if path.name.count(":") == 1:  # a second colon is a part of a package
            with suppress(OSError):
                (path / "energy_uj").read_text()
                readable.append(path)
    return readable
