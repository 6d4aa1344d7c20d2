"""Waits for another rank's work on its host, such as reading, writing, and evaluating.

Such work takes longer than any collective, and NCCL's watchdog kills processes that wait for it in an NCCL collective.
So ranks wait in a gloo group with a separate time limit, which blocks no CUDA stream.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch.distributed import ProcessGroup

from configs.errors import RunError

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 7200.0

_GRACE_S = 30.0  # added to gloo's own limit, so that the error which names the work is raised first


class HostGroup:
    """A gloo group for waits on host work. Collective: all ranks create it and call its methods in the same order."""

    def __init__(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Creates the group; `timeout_s` is the default and the longest limit of a wait, in seconds."""
        self.timeout_s = timeout_s
        self.world = torch.distributed.group.WORLD
        limit = timedelta(seconds=timeout_s + _GRACE_S)
        self.group: ProcessGroup = torch.distributed.new_group(backend="gloo", timeout=limit)

    def barrier(self, doing: str, timeout_s: float | None = None) -> None:
        """Waits until all ranks have called this.

        Args:
            doing: what other ranks may still be doing, e.g. "writing the model"; for the error.
            timeout_s: longest wait, in seconds; at most the group's limit, which is the default.

        Raises:
            RunError: a rank did not arrive in time; the message names the work and the rank that waited.
            ValueError: `timeout_s` exceeds the group's limit.
        """
        limit = self.timeout_s if timeout_s is None else timeout_s
        if limit > self.timeout_s:
            raise ValueError(f"timeout_s {limit:g} is more than the {self.timeout_s:g} s of the group")
        began = time.monotonic()
        try:
            torch.distributed.barrier(self.group, async_op=True).wait(timedelta(seconds=limit))
        except RuntimeError as error:
            if time.monotonic() - began < 0.99 * limit:
                raise  # another rank died
            raise RunError(
                f"rank {torch.distributed.get_rank()} waited {limit:g} s for another rank that is {doing}; raise "
                "cluster.host_timeout_s if it needs longer"
            ) from error

    def of_first_rank(self, value: T, doing: str) -> T:
        """Broadcasts rank 0's `value` to all ranks, after waiting for its work, `doing`, with `barrier`."""
        self.barrier(doing)
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, group=self.group, device=torch.device("cpu"))
        return values[0]

    def of_every_rank(self, value: T, doing: str) -> list[T]:
        """Gathers every rank's `value` on all ranks, in rank order, after waiting for their work with `barrier`."""
        self.barrier(doing)
        values: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(values, value, group=self.group)
        return values

    def largest(self, value: int) -> int:
        """Returns the largest `value` of all ranks; unlike in `barrier`, the error of a timeout names no work."""
        found = torch.tensor(value)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=self.group)
        return int(found)


_opened: HostGroup | None = None


def open_host_group(timeout_s: float = DEFAULT_TIMEOUT_S) -> HostGroup:
    """Creates this process's host group. Collective: all ranks call it, preferably right after joining the world."""
    global _opened
    _opened = HostGroup(timeout_s)
    return _opened


def host_group() -> HostGroup:
    """Returns the host group of the current world.

    Creates it if there is none for this world, which is a collective call: all ranks must make it.
    """
    if _opened is None or _opened.world is not torch.distributed.group.WORLD:
        return open_host_group()
    return _opened
