"""How the processes of one SLURM step find each other, without names or fixed ports.

Process 0 listens on a port that the system picks and publishes its addresses in a file that all
nodes see; the others read the file and try the addresses in turn. Node names need not resolve, and
a job that starts again never meets the file of the start before: its name tells starts apart.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is there

from cardamage.console import log
from cardamage.errors import MachineFault
from cardamage.files import write_json

MEETING = "CARDAMAGE_RENDEZVOUS"
"""The environment variable that names the folder of the file; unset, nothing is done."""

COLLECTIVE_S = 1800.0
"""How long NCCL and gloo wait for a peer, in seconds; a watchdog has to be quicker."""

_SIOCGIFADDR = 0x8915  # Linux's request for the IPv4 address of a network interface
_POLL_S = 0.1
_CONNECT_S = 3.0


def is_needed() -> bool:
    """Whether this process is one of several of a SLURM step that nobody has joined yet."""
    is_one_of_several = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    if not is_one_of_several or "SLURM_STEP_ID" not in os.environ or "RANK" in os.environ:
        return False
    if MEETING not in os.environ:
        log.warning(
            "this is one of %s tasks of a SLURM step and works by itself; for tasks that train "
            "together set %s to a folder that all nodes see",
            os.environ["SLURM_STEP_NUM_TASKS"],
            MEETING,
        )
    return MEETING in os.environ


def join(*, timeout_s: float = 300.0) -> None:
    """Join the processes of this SLURM step into torch's default process group.

    Sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and their like, as torchrun would.

    Args:
        timeout_s: how long to wait for the others.

    Raises:
        MachineFault: they did not come in time, or cannot be reached.
    """
    rank, world = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_STEP_NUM_TASKS"])
    nodes, local_rank = int(os.environ["SLURM_STEP_NUM_NODES"]), int(os.environ["SLURM_LOCALID"])
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
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID")
    return ".".join(os.environ.get(name, "0") for name in names)


def _publish(path: Path, port: int) -> None:
    """Write down where process 0 can be reached, its likeliest address first."""
    hint = os.environ.get("SLURM_LAUNCH_NODE_IPADDR")
    found = dict.fromkeys([*([hint] if hint else []), *_interfaces()])
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
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name[:15].encode())
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:  # it has no IPv4 address
                continue
            found[socket.inet_ntoa(answer[20:24])] = name
    return found
