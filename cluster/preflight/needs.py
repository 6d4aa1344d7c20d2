"""What a run asks for, in words that a cluster understands: processes, memory of each, disk. Knows no stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Row = tuple[str, int, str]
"""Name, bytes and arithmetic of one part of a rank's memory."""


@dataclass(frozen=True)
class Need:
    """The ranks of one role; all figures are one rank's."""

    role: str
    ranks: int
    host_bytes: int = 0  # memory of its node
    host_shared_bytes: int = 0  # of those, pages that processes of one node share
    gpu_bytes: int = 0  # memory of its GPU
    host: Sequence[Row] = ()
    gpu: Sequence[Row] = ()
    first: Sequence[Row] = ()  # rank 0's besides, in its node's memory
    moment: str = ""  # when the device that computes is fullest, in words


@dataclass(frozen=True)
class Place:
    """One placement group: a role that is apart, or several that share. Bundle i holds rank i of each."""

    name: str
    bundles: Sequence[Mapping[str, float]]  # what it reserves, by Ray's names
    needs: Sequence[Need]

    def of_rank(self, rank: int) -> list[Need]:
        """The roles that bundle `rank` holds a process of, with what rank 0 has besides."""
        here = [need for need in self.needs if rank < need.ranks]
        if rank:
            return here
        return [replace(need, host_bytes=need.host_bytes + sum(size for _, size, _ in need.first)) for need in here]


@dataclass(frozen=True)
class Disk:
    """Bytes that a run will have written to a folder."""

    folder: str
    bytes: int
    why: str


Level = Literal["fits", "tight", "unknown", "refused"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `subject`: what it is about, a role where it is a role's; `text`: a clause."""

    level: Level
    subject: str
    text: str


@dataclass(frozen=True)
class Plan:
    """All that a stage needs. Places of one group are there at the same time, groups one after another."""

    groups: Mapping[str, Sequence[Place]]
    disks: Sequence[Disk] = ()
    findings: Sequence[Finding] = field(default_factory=tuple)  # what needs no cluster to be known


def gib(count: float) -> str:
    """Bytes as `1.2 GiB`."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 or count <= -(2**30) else f"{count / 2**20:,.0f} MiB"
