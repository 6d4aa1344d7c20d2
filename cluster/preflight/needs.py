"""A run's needs, independent of the stage: processes, the memory of each, and disk space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Row = tuple[str, int, str]
"""One part of a rank's memory: its name, its bytes, and how they are computed."""


@dataclass(frozen=True)
class Need:
    """The needs of one role's ranks; all amounts are for one rank."""

    role: str
    ranks: int
    host_bytes: int = 0  # memory of its node
    host_shared_bytes: int = 0  # the part of `host_bytes` that the processes of one node share
    gpu_bytes: int = 0  # memory of its GPU
    gpu_bytes_at_rest: int = 0  # the part of `gpu_bytes` that it keeps while other roles have their turn
    host: Sequence[Row] = ()
    gpu: Sequence[Row] = ()
    first: Sequence[Row] = ()  # rank 0's additional memory on its node
    moment: str = ""  # description of the moment of peak memory on the device that computes


@dataclass(frozen=True)
class Place:
    """One placement group, of one role or of several that share it. Bundle i holds rank i of each role."""

    name: str
    bundles: Sequence[Mapping[str, float]]  # amounts by Ray's resource names
    needs: Sequence[Need]
    in_turn: bool = False  # whether its roles use their GPU one after another

    def gpu_bytes(self) -> int:
        """Returns the memory that the roles need of the GPU of bundle 0, which holds a rank of every role."""
        needs = self.of_rank(0)
        if not self.in_turn:
            return sum(need.gpu_bytes for need in needs)
        at_rest = sum(need.gpu_bytes_at_rest for need in needs)
        return at_rest + max(need.gpu_bytes - need.gpu_bytes_at_rest for need in needs)

    def of_rank(self, rank: int) -> list[Need]:
        """Returns the needs of the roles that have this rank, including rank 0's additional memory."""
        here = [need for need in self.needs if rank < need.ranks]
        if rank:
            return here
        return [replace(need, host_bytes=need.host_bytes + sum(size for _, size, _ in need.first)) for need in here]


@dataclass(frozen=True)
class Disk:
    """Total bytes that a run writes to a folder; `why` lists the files that they consist of."""

    folder: str
    bytes: int
    why: str


Level = Literal["fits", "tight", "unknown", "refused"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. `subject` is what was checked, such as a role's name; `text` describes the result."""

    level: Level
    subject: str
    text: str


@dataclass(frozen=True)
class Plan:
    """All needs of a stage.

    The placement groups in one entry of `groups` exist at the same time; the entries exist one after another.
    """

    groups: Mapping[str, Sequence[Place]]
    disks: Sequence[Disk] = ()
    findings: Sequence[Finding] = field(default_factory=tuple)  # results that do not depend on a cluster


def gib(count: float) -> str:
    """Formats bytes as `1.2 GiB`, or as MiB below 1 GiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 or count <= -(2**30) else f"{count / 2**20:,.0f} MiB"
