"""How the processes of one SLURM step find each other, without names or fixed ports.

Process 0 listens on a port that the system picks and publishes its addresses in a file of the run
directory; the others read the file and try the addresses in turn. Node names need not resolve, and
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
from cardamage.errors import CardamageError
from cardamage.files import write_json

_SIOCGIFADDR = 0x8915  # Linux's request for the IPv4 address of a network interface
_POLL_S = 0.2
_CONNECT_S = 3.0


def is_needed() -> bool:
    """Whether this process is one of several of a SLURM step that nobody has joined yet."""
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and (
        "SLURM_PROCID" in os.environ and "RANK" not in os.environ
    )


def join(folder: Path, *, timeout_s: float = 300.0) -> None:
    """Join the processes of this SLURM step into torch's default process group.

    Sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and their like, as torchrun would.

    Args:
        folder: seen by all nodes; the rendezvous file is written here.
        timeout_s: how long to wait for the others.

    Raises:
        CardamageError: process 0 was not found in time.
    """
    rank, world = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    path = folder / f"rendezvous-{_start()}.json"
    if rank == 0:
        store, address = _listen(path, world, timeout_s)
    else:
        store, address = _find(path, world, timeout_s)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=os.environ["SLURM_LOCALID"],
        LOCAL_WORLD_SIZE=str(world // int(os.environ.get("SLURM_NNODES", "1"))),
        MASTER_ADDR=address,
        MASTER_PORT=str(store.port),
    )
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=world, timeout=timedelta(seconds=timeout_s)
    )


def _start() -> str:
    """What tells this start of the step from every other."""
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID")
    return ".".join(os.environ.get(name, "0") for name in names)


def _listen(path: Path, world: int, timeout_s: float) -> tuple[TCPStore, str]:
    store = TCPStore(
        "127.0.0.1",
        0,
        world,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
    )
    hint = os.environ.get("SLURM_LAUNCH_NODE_IPADDR")
    found = [*([hint] if hint else []), *_interfaces()]
    addresses = sorted(dict.fromkeys(found), key=lambda address: address.startswith("127."))
    for old in path.parent.glob("rendezvous-*.json"):
        old.unlink(missing_ok=True)
    write_json(path, {"addresses": addresses, "port": store.port})
    _use_interface_of(addresses[0])
    return store, addresses[0]


def _find(path: Path, world: int, timeout_s: float) -> tuple[TCPStore, str]:
    deadline = time.monotonic() + timeout_s
    while not path.is_file():
        if time.monotonic() > deadline:
            raise CardamageError(
                f"process 0 did not show up within {timeout_s:.0f} s: {path} is not there; "
                f"does every node see that folder?"
            )
        time.sleep(_POLL_S)
    meeting = json.loads(path.read_text(encoding="utf-8"))
    for address in meeting["addresses"]:
        try:
            with socket.create_connection((address, meeting["port"]), timeout=_CONNECT_S) as probe:
                own = str(probe.getsockname()[0])
        except OSError:
            continue
        _use_interface_of(own)
        store = TCPStore(
            address,
            meeting["port"],
            world,
            is_master=False,
            timeout=timedelta(seconds=timeout_s),
        )
        return store, address
    raise CardamageError(
        f"process 0 cannot be reached at {', '.join(meeting['addresses'])}, "
        f"port {meeting['port']}; is there a firewall between the nodes?"
    )


def _use_interface_of(address: str) -> None:
    """Tell gloo which network to use: left alone it asks what the node's name resolves to."""
    if name := _interfaces().get(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    else:
        log.warning("no network interface has the address %s; gloo chooses one", address)


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
