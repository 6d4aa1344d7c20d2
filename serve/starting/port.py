"""Checks that the endpoint's port is free.

With SO_REUSEPORT, Serve would share a port that another process listens on, and receive half of its requests.
"""

from __future__ import annotations

import socket

from cluster.sockets import command_line, listeners
from configs.errors import ConfigError

_SECONDS = 2.0
_EVERY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


def require_free_port(host: str, port: int) -> None:
    """Rejects a port that is in use.

    Raises:
        ConfigError: a process listens on the port, or `host` is not an address of this machine.
    """
    if is_taken(host, port):
        raise ConfigError(
            f"port {port} of {host} is in use{_by(port)}: end that process, or give another port with --port"
        )
    try:
        with socket.socket(_family(host)) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignores TIME_WAIT of an ended process
            server.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}, port {port} ({error.strerror}){_by(port)}: give others with --host and --port"
        ) from error


def is_taken(host: str, port: int) -> bool:
    """Returns whether a process accepts connections at this address."""
    try:
        with socket.create_connection((_EVERY.get(host, host), port), timeout=_SECONDS):
            return True
    except OSError:
        return False


def _by(port: int) -> str:
    pids = {found.pid for found in listeners() if found.port == port and found.pid is not None}
    return "".join(f" by process {pid} ({command_line(pid)[:80]})" for pid in sorted(pids))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
