"""Waiting for work that another rank does on its host: reading, writing, evaluating.

Such work takes longer than any collective, and NCCL's watchdog kills processes that wait for it in a collective of NCCL. So
ranks wait in a gloo group with a time limit of its own, which blocks no CUDA stream.
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

_GRACE_S = 30.0  # gloo's own limit is later, so that the one which says what was waited for comes first


class HostGroup:
    """The ranks of the world, for waits on hosts. All ranks make it, and call its methods, in the same order."""

    def __init__(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """`timeout_s` is the longest wait where none is given."""
        self.timeout_s = timeout_s
        self.world = torch.distributed.group.WORLD
        limit = timedelta(seconds=timeout_s + _GRACE_S)
        self.group: ProcessGroup = torch.distributed.new_group(backend="gloo", timeout=limit)

    def barrier(self, doing: str, timeout_s: float | None = None) -> None:
        """Waits until all ranks are here.

        Args:
            doing: what the others may still be doing, e.g. "writing the model".
            timeout_s: the longest wait, in seconds; at most the group's.

        Raises:
            RunError: not all were here in time; names what was waited for and by whom.
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
        """Rank 0's `value`, on every rank, once rank 0 is done `doing` what gave it; see `barrier`."""
        self.barrier(doing)
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, group=self.group, device=torch.device("cpu"))
        return values[0]

    def of_every_rank(self, value: T, doing: str) -> list[T]:
        """Every rank's `value`, in the order of ranks, on every rank, once all are done `doing` what gave it; see `barrier`."""
        self.barrier(doing)
        values: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(values, value, group=self.group)
        return values

    def largest(self, value: int) -> int:
        """The largest `value` of any rank, on every rank. For ranks in lockstep: the wait is not named, as `barrier` does."""
        found = torch.tensor(value)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=self.group)
        return int(found)


_opened: HostGroup | None = None


def open_host_group(timeout_s: float = DEFAULT_TIMEOUT_S) -> HostGroup:
    """Makes this process's host group; all ranks call it, best as soon as they have entered the world."""
    global _opened
    _opened = HostGroup(timeout_s)
    return _opened


def host_group() -> HostGroup:
    """The host group of the world that this process is in; made now if it was not opened."""
    if _opened is None or _opened.world is not torch.distributed.group.WORLD:
        return open_host_group()
    return _opened
