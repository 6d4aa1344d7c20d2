"""The key-value store for the rendezvous of a torch.distributed world, bound to one address."""

from __future__ import annotations

import socket
from datetime import timedelta
from importlib import import_module
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]


def open_store(rank: int, world_size: int, host: str, port: int, timeout: timedelta) -> TCPStore:
    """Opens the store at `host`; rank 0 serves it, on that address only.

    torch itself would listen on all addresses of the machine. That is a risk: a process that reaches the store can
    direct ranks to other peers, whose messages they unpickle.
    """
    if rank:
        return TCPStore(host, port, world_size, is_master=False, timeout=timeout)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family)
    return TCPStore(
        host,
        port,
        world_size,
        is_master=True,
        timeout=timeout,
        master_listen_fd=listening.detach(),
        wait_for_workers=False,
    )


def bind_stores_to_their_host() -> None:
    """Makes every store that this process opens from now on, also in libraries, listen on one address only."""
    module: Any = import_module("torch.distributed.rendezvous")  # the package has a function of that name
    module._create_c10d_store = _at_host


def _at_host(
    hostname: str, port: int, rank: int, world_size: int, timeout: timedelta, use_libuv: bool = True
) -> TCPStore:
    return open_store(rank, world_size, hostname, port, timeout)
