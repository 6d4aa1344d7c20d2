"""Memory of this process and everything it starts, including Ray's daemons and workers (Linux).

Memory is measured as the proportional set size (PSS): a page shared by n processes counts 1/n in each, so the sum over
processes is what they take from the machine together. Resident sizes would count a shared library once per process.
"""

from __future__ import annotations

import ctypes
import os
import resource
import uuid
from pathlib import Path
from typing import Self

from cluster.polling import PollingThread

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")

_Process = tuple[int, int]
"""A process by its id and start time, since ids are reused."""


class PeakMemory(PollingThread):
    """The peak memory of a process tree, sampled while the `with` block runs.

        with PeakMemory() as memory:
            ...
        print(memory.peak_bytes)

    Args:
        seconds: time between two samples; a peak that is shorter may be missed.
    """

    def __init__(self, seconds: float = 2.0) -> None:
        super().__init__("peak-memory", seconds)
        self.peak_bytes = 0
        # Processes that leave the tree (daemons, orphans) are identified by this variable, which they inherit.
        self._mark = f"CHIMED_MEMORY_{uuid.uuid4().hex}"
        self._ours: set[_Process] = set()
        self._others: set[_Process] = set()

    def start(self) -> Self:
        """Takes the first sample and starts the thread."""
        os.environ[self._mark] = "1"
        self.sample()
        return super().start()

    def poll(self) -> None:
        """Takes one sample."""
        self.sample()

    def stop(self) -> None:
        """Stops the thread and takes the last sample."""
        super().stop()
        self.sample()
        del os.environ[self._mark]

    def sample(self) -> int:
        """Returns the bytes in use now, and updates the peak."""
        total = sum(process_bytes(pid) for pid in self._members())
        self.peak_bytes = max(self.peak_bytes, total)
        return total

    def _members(self) -> list[int]:
        """Returns the ids of this process, its descendants, former descendants, and processes that carry the mark."""
        parents: dict[_Process, int] = {}
        for entry in _PROC.iterdir():
            if entry.name.isdigit() and (found := _parent_and_start(int(entry.name))):
                parents[int(entry.name), found[1]] = found[0]
        known = set(parents)
        self._ours &= known
        self._others &= known
        pids = {os.getpid(), *(pid for pid, _ in self._ours)}
        for process in sorted(known - self._ours, key=lambda process: process[1]):  # parents are older than children
            pid = process[0]
            if pid in pids or parents[process] in pids or (process not in self._others and self._is_marked(pid)):
                self._ours.add(process)
                self._others.discard(process)
                pids.add(pid)
            else:
                self._others.add(process)
        return [pid for pid, _ in self._ours]

    def _is_marked(self, pid: int) -> bool:
        try:
            return self._mark.encode() in (_PROC / str(pid) / "environ").read_bytes()
        except OSError:  # another user's process, or it has ended
            return False


def process_bytes(pid: int) -> int:
    """Returns a process's PSS in bytes; its resident size if the PSS is unreadable; 0 if the process has ended."""
    folder = _PROC / str(pid)
    try:
        for line in (folder / "smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except PermissionError:
        pass  # every user may read the resident size below
    except (FileNotFoundError, ProcessLookupError):
        return 0
    try:
        return int((folder / "statm").read_bytes().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0


def status_bytes(pid: int, field: str) -> int:
    """Returns a size of `/proc/PID/status` (proc(5)) in bytes; 0 if the process has ended or has no such field.

    Args:
        pid: the process's id.
        field: the field's name, e.g. `VmHWM`, the peak resident size, or `RssAnon`.
    """
    try:
        lines = (_PROC / str(pid) / "status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def available_bytes() -> int:
    """Returns the available memory of this machine, or of this container, in bytes."""
    from cluster.ray_internals import estimate_available_memory

    return int(estimate_available_memory())


def return_free_memory() -> None:
    """Returns freed memory to the operating system, if the C library has `malloc_trim`.

    glibc's malloc otherwise keeps freed blocks for later allocations.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Returns this process's resident size in bytes."""
    return int((_PROC / "self" / "statm").read_bytes().split()[1]) * _PAGE


def peak_resident_bytes() -> int:
    """Returns the peak of this process's resident size in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _parent_and_start(pid: int) -> tuple[int, int] | None:
    """Returns the parent's id and the start time (clock ticks) of a process; None if it has ended."""
    try:
        # The second field, the name in parentheses, may itself contain spaces and parentheses.
        values = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(values[1]), int(values[19])
