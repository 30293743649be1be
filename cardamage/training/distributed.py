"""Starting the one Accelerator of a program: device, processes and precision."""

import json
import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is there

from cardamage.errors import CardamageError, ConfigError, MachineFault, counted, ranges
from cardamage.system.console import log
from cardamage.system.files import write_json
from cardamage.system.job import current_job, current_step
from cardamage.system.processes import node_name, usable_cores
from cardamage.training.memory import keep_freed_memory

MEETING = "CARDAMAGE_RENDEZVOUS"
"""The environment variable that names the folder of the file; unset, nothing is done."""

COLLECTIVE_S = 1800.0
"""How long NCCL and gloo wait for a peer, in seconds; a watchdog has to be quicker."""

_POLL_S = 0.1
_CONNECT_S = 3.0


def start_accelerator(mixed_precision: str) -> Accelerator:
    """The Accelerator of this process, joined with those of the same launch.

    Args:
        mixed_precision: "no", "fp16", "bf16" or "auto".

    Raises:
        ConfigError: the device has no arithmetic of that precision.
        CardamageError: fewer processes joined than were started.
    """
    if is_needed():
        join()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    # Left to itself, Accelerate takes several processes without a GPU for as many lone ones.
    on_cpu = processes > 1 and not torch.cuda.is_available()
    if mixed_precision == "auto":
        mixed_precision = "bf16" if is_quick_at_bf16() else "no"
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=on_cpu)
    except ValueError as error:
        raise ConfigError(
            f'train.mixed_precision is "{mixed_precision}", which this machine cannot do '
            f'({error}); use "no"'
        ) from None
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError(
            'train.mixed_precision is "fp16", which needs a GPU; use "bf16" or "no" on a CPU'
        )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    if accelerator.num_processes != processes:
        raise CardamageError(
            f"{processes} processes were started but {accelerator.num_processes} joined; "
            f"start them with `accelerate launch` or torchrun"
        )
    return accelerator


def resources(accelerator: Accelerator) -> dict[str, Any]:
    """``devices`` and ``processes`` of an attempt: what each process computes on, how many."""
    device, threads = accelerator.device, torch.get_num_threads()
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"{device.type}, {threads} threads"
    return {"devices": name, "processes": accelerator.num_processes}


def is_quick_at_bf16() -> bool:
    """Whether the device multiplies matrices of bfloat16 itself: GPUs since Ampere, CPUs with AMX.

    Every process of a launch has to find the same.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    return "amx_bf16" in _flags_of_cpu()


def _flags_of_cpu() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def check_placement(accelerator: Accelerator) -> None:
    """Log cores and GPUs of every process; warn where SLURM was asked for others. All take part."""
    gathered = gather_object([_placement(accelerator)])
    if accelerator.is_main_process:
        for found, problems in gathered:
            log.info("%s", found)
            for problem in problems:
                log.warning("%s: %s", found, problem)


def _placement(accelerator: Accelerator) -> tuple[str, list[str]]:
    """Where this process is, in words, and what differs from what was asked for."""
    cores, gpus = usable_cores(), torch.cuda.device_count()
    shown = f"{accelerator.device} of {counted(gpus, 'visible GPU')}" if gpus else "no GPU visible"
    where = f"process {accelerator.process_index} on {node_name()}"
    precision = accelerator.mixed_precision
    precision = "" if precision == "no" else f", {precision}"
    text = f"{where}: {counted(len(cores), 'core')} ({ranges(cores)}), {shown}{precision}"
    problems = []
    job = current_job()
    asked = job.cpus_per_task if job else 0
    if len(cores) < asked:
        problems.append(
            f"SLURM was asked for {counted(asked, 'core')}, so it is slower than it could be"
        )
    elif asked and len(cores) > 2 * asked:  # SLURM may count cores whose two threads are seen here
        problems.append(f"SLURM was asked for {counted(asked, 'core')}, and it is not held to that")
    of_node = job.gpus_on_node if job else 0
    own = of_node // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if of_node and gpus < max(own, 1):
        problems.append(
            f"SLURM gave its node {counted(of_node, 'GPU')}; do the driver and torch's CUDA match?"
        )
    return text, problems


def is_needed() -> bool:
    """Whether this process is one of several of a SLURM step that nobody has joined yet."""
    step = current_step()
    if step is None or step.tasks == 1 or "RANK" in os.environ:
        return False
    if MEETING not in os.environ:
        log.warning(
            "this is one of %s tasks of a SLURM step and works by itself; for tasks that train "
            "together set %s to a folder that all nodes see",
            step.tasks,
            MEETING,
        )
    return MEETING in os.environ


def join(*, timeout_s: float = 300.0) -> None:
    """Join the processes of this SLURM step into torch's default process group.

    Sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and their like, as torchrun would.

    Raises:
        MachineFault: they did not come in time, or cannot be reached.
    """
    step = current_step()
    assert step is not None  # noqa: S101 - as is_needed() found
    rank, world, nodes, local_rank = step.rank, step.tasks, step.nodes, step.local_rank
    path = Path(os.environ[MEETING]) / f"rendezvous-{_start()}.json"
    timeout = timedelta(seconds=timeout_s)
    try:
        if rank == 0:  # whatever the address says, it listens on all networks
            store = TCPStore(
                "127.0.0.1", 0, world, is_master=True, wait_for_workers=False, timeout=timeout
            )
            _publish(path, store.port)
        else:
            address, port = _find(path, timeout_s)
            store = TCPStore(address, port, world, is_master=False, timeout=timeout)
        if rank == world - 1:  # it is on the last node: where it got through, all do
            store.set("address", address)
        address = store.get("address").decode()
    except distributed.DistError as error:
        raise MachineFault(
            f"process {rank} of {world} did not meet the others within {timeout_s:g} s "
            f"({str(error).splitlines()[0]}); did one of them end?"
        ) from None
    _use_network_to(address)
    if torch.cuda.is_available():  # SLURM may show each process no GPU but its own
        local_rank %= torch.cuda.device_count()
        torch.cuda.set_device(local_rank)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(local_rank),
        LOCAL_WORLD_SIZE=str(world // nodes),
        MASTER_ADDR=address,  # Accelerate asks for them and does not use them
        MASTER_PORT=str(store.port),
    )
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=COLLECTIVE_S),
    )
    if rank == 0:
        path.unlink(missing_ok=True)  # all have come


def _start() -> str:
    """What tells this start of the step from every other; its first part is the job."""
    job, step = current_job(), current_step()
    return f"{job.id if job else 0}.{job.restarts if job else 0}.{step.id if step else 0}"


def _publish(path: Path, port: int) -> None:
    """Write down where process 0 can be reached, its likeliest address first."""
    step = current_step()
    hint = [step.launcher] if step and step.launcher else []
    found = dict.fromkeys([*hint, *_interfaces()])
    addresses = sorted(found, key=lambda address: address.startswith("127."))
    for old in path.parent.glob(f"rendezvous-{_start().partition('.')[0]}.*.json"):
        old.unlink(missing_ok=True)  # left by a start of this job that was killed
    write_json(path, {"addresses": addresses, "port": port})


def _find(path: Path, timeout_s: float) -> tuple[str, int]:
    """The first address of process 0 that takes a connection, and its port."""
    deadline = time.monotonic() + timeout_s
    while not path.is_file():
        if time.monotonic() > deadline:
            raise MachineFault(
                f"process 0 did not show up within {timeout_s:g} s: {path} is not there; "
                f"does every node see that folder?"
            )
        time.sleep(_POLL_S)
    meeting = json.loads(path.read_text(encoding="utf-8"))
    for address in meeting["addresses"]:
        try:
            socket.create_connection((address, meeting["port"]), timeout=_CONNECT_S).close()
        except OSError:
            continue
        return address, meeting["port"]
    raise MachineFault(
        f"process 0 cannot be reached at {', '.join(meeting['addresses'])}, "
        f"port {meeting['port']}; is there a firewall between the nodes?"
    )


def _use_network_to(address: str) -> None:
    """Tell gloo which network to use: left alone it asks what the node's name resolves to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing, but settles which way it would go
        own = probe.getsockname()[0]
    if name := _interfaces().get(own):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    else:
        log.warning("no network interface has the address %s; gloo chooses one", own)


def _interfaces() -> dict[str, str]:
    """The names of this node's network interfaces by IPv4 address."""
    return {
        entry.address: name
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family is socket.AF_INET
    }
