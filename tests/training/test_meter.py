"""What a stage's process takes is measured where it can be read."""

import sys
from types import SimpleNamespace

import torch
from accelerate import Accelerator

from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage, running
from cardamage.runs.usage import usage_of_attempt
from cardamage.training import meter
from cardamage.training.meter import Meter


def test_energy_of_processors_is_read_over_a_wrap_and_memory_always(tmp_path, monkeypatch):
    counter, part = (tmp_path / name for name in ("intel-rapl:0", "intel-rapl:0:0"))
    for path, microjoules in ((counter, 9_000_000), (part, 1)):
        path.mkdir()
        (path / "energy_uj").write_text(f"{microjoules}\n")
        (path / "max_energy_range_uj").write_text("10000000\n")
    monkeypatch.setattr(meter, "_POWERCAP", tmp_path)
    run = RunPaths(tmp_path / "cars")
    with running(run, "train"):
        with Meter(run, "train", Accelerator(cpu=True)):
            (counter / "energy_uj").write_text("2000000\n")
        found = usage_of_attempt(run, "train", read_stage(run, "train").started)
    assert found.cpu_joules == 3.0
    assert found.memory_bytes > 50_000_000
    assert (found.gpu_joules, found.gpu_use) == (None, None)


def test_a_gpu_is_asked_by_its_own_id(monkeypatch):
    joules = iter([5000, 8000])
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-abc": "handle"}[uuid],
        nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=50),
        nvmlDeviceGetTotalEnergyConsumption=lambda _: next(joules),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    properties = SimpleNamespace(uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    gpu = meter._gpu(torch.device("cuda:0"))
    assert (gpu.use(), gpu.joules()) == (0.5, 3.0)
    properties.uuid = "unknown"
    assert meter._gpu(torch.device("cuda:0")) is None
