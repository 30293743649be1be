"""Running the service on a port of this machine."""

import ipaddress
import socket
from collections.abc import Callable

import torch
import uvicorn
from starlette.applications import Starlette

from cardamage.errors import ConfigError
from cardamage.serve.app import Limits
from cardamage.system.processes import count_cores

_BACKLOG = 2000
"""Connections that the system holds until they are accepted.

How many are open has no limit of its own: uvicorn's refuses all there are while there are too many,
so that nobody is served. The application takes as many photos as it has room for.
"""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the address is not this machine's, or the port is taken.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"--port {port}: from 1 to 65535, or 0 for any that is free")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port} cannot be listened on ({error.strerror}); choose another "
            f"port, or 0 for any that is free"
        ) from None


def trusted_hosts(host: str) -> list[str] | None:
    """The names that requests may ask for: on the loopback its own, elsewhere any."""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    return ["localhost", "127.0.0.1", "[::1]", host] if is_local else None


def serve(
    app: Starlette, listening: socket.socket, limits: Limits, *, started: Callable[[], object]
) -> None:
    """Serve until the process is asked to stop; ``started`` is called before."""
    torch.set_num_threads(max(1, count_cores() // limits.at_once))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
    )
    started()
    uvicorn.Server(config).run(sockets=[listening])
