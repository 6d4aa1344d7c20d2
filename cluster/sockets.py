"""Listening TCP sockets of this machine, and the processes that own them (Linux, read from /proc)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"  # TCP_LISTEN of the kernel's tcp_states.h


@dataclass(frozen=True, order=True)
class Listener:
    """One listening TCP socket."""

    address: str
    """The IP address; 0.0.0.0 and :: stand for all addresses of the machine."""
    port: int
    pid: int | None
    """The process id; None for another user's process."""


def listeners(pids: Collection[int] | None = None) -> list[Listener]:
    """Returns the listening TCP sockets of this machine, or of the processes `pids`, sorted by address and port."""
    owners = {inode: pid for pid in (pids if pids is not None else _pids()) for inode in _sockets(pid)}
    return sorted(
        {
            Listener(address, port, owners.get(inode))
            for address, port, inode in _listening()
            if pids is None or inode in owners
        },
        key=lambda found: (found.address, found.port, found.pid or 0),
    )


def command_line(pid: int) -> str:
    """Returns a process's command line, or the title that it has set; an empty string if it has ended."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def children() -> dict[int, list[int]]:
    """Returns the child process ids of each process, by the parent's id."""
    found: dict[int, list[int]] = {}
    for pid in _pids():
        try:
            # The name in parentheses may have spaces; the parent is the second field after it (proc(5)).
            parent = int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        found.setdefault(parent, []).append(pid)
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _sockets(pid: int) -> Iterator[str]:
    """Yields the inodes of a process's sockets; none if it has ended or belongs to another user."""
    try:
        descriptors = list((_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(descriptor)
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _listening() -> Iterator[tuple[str, int, str]]:
    for name in ("tcp", "tcp6"):
        table = _PROC / "net" / name
        if not table.exists():  # the kernel has no IPv6
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                host, _, port = fields[1].partition(":")
                yield _ip(host), int(port, 16), fields[9]


def _ip(text: str) -> str:
    """Parses an address from the kernel's hex form, 32-bit words in host byte order; IPv4-mapped IPv6 becomes IPv4."""
    raw = b"".join(struct.pack("=I", int(text[start : start + 8], 16)) for start in range(0, len(text), 8))
    if len(raw) == 16 and raw.startswith(b"\0" * 10 + b"\xff\xff"):
        raw = raw[12:]
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
