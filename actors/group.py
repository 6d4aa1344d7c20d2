"""The processes of one role: Ray actors in a placement group, the role's own or a shared one, addressed as one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.batching import rows_of
from actors.colocation import Site
from actors.config import PlacementConfig
from actors.worker import Worker
from cluster.waiting import RoleError, get

STOP_TIMEOUT_S = 30.0
_SPINS = "1000000"
"""How often an OpenMP thread looks for work before it sleeps: a few milliseconds.

A decoded token is hundreds of short parallel regions. Threads that sleep between them take half as long again; threads
that never sleep would take the core from the role whose turn it is.
"""

W = TypeVar("W", bound=Worker)
RowsOfRanks = list[list[int]] | list[list[list[int]]]  # rank -> rows, or rank -> micro-batch -> rows


class WorkerGroup(Generic[W]):
    """The ranks of one role. Calls go to all ranks; answers come back in rank order."""

    def __init__(
        self,
        run: str,
        role: str,
        worker: type[W],
        site: Site,
        group: PlacementGroup,
        timeout_s: float,
        calls_at_once: int = 1,
    ) -> None:
        """Starts the processes, named RUN/ROLE-RANK; their class and name are what the Ray dashboard shows.

        `group` is what was reserved for `site`; rank i gets its share of bundle i.
        """
        placement = site.roles[role]
        self.role = role
        self.timeout_s = timeout_s
        self.ranks = placement.ranks
        self.names = [f"{run}/{role}-{rank}" for rank in range(placement.ranks)]
        remote = ray.remote(worker)
        self.actors: list[ActorHandle] = [
            remote.options(
                name=name,
                num_cpus=share["CPU"],
                num_gpus=share["GPU"],
                max_concurrency=calls_at_once,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
                runtime_env={"env_vars": _environment(placement)},
            ).remote(placement.threads, (run, role, rank))
            for rank, (name, share) in enumerate(zip(self.names, site.shares(role), strict=True))
        ]

    def stop(self) -> None:
        """Ends the processes, the dead and the hung ones included, and returns when their names are free again."""
        for actor in self.actors:
            ray.kill(actor)
        until = time.monotonic() + STOP_TIMEOUT_S
        for name in self.names:
            while _taken(name):
                if time.monotonic() > until:
                    raise RoleError(f"{name}: still there {STOP_TIMEOUT_S:.0f} s after it was ended")
                time.sleep(0.02)

    def join_world(self) -> None:
        """Makes the ranks one torch.distributed world."""
        host, port = get(self.actors[0].address.remote(), f"{self.role}: start", self.timeout_s)
        self.wait(
            [a.join.remote(rank, self.ranks, host, port, self.timeout_s) for rank, a in enumerate(self.actors)], "join"
        )

    def submit(self, method: str, *arguments: Any) -> list[ray.ObjectRef]:
        """Calls `method` on every rank with the same arguments; returns at once."""
        return [getattr(actor, method).remote(*arguments) for actor in self.actors]

    def wait(self, refs: list[ray.ObjectRef], doing: str) -> list[Any]:
        """Every rank's answer, in rank order. Raises RoleError naming the role for a timeout or a dead rank."""
        return get(refs, f"{self.role}: {doing}", self.timeout_s)

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Calls `method` on every rank and waits."""
        return self.wait(self.submit(method, *arguments), method)

    def submit_rows(self, method: str, table: ray.ObjectRef, rows: Sequence[Any], *more: Any) -> list[ray.ObjectRef]:
        """Calls `method(table, rows[rank], *more)` on every rank that has rows; returns at once."""
        return [
            getattr(actor, method).remote(table, mine, *more)
            for actor, mine in zip(self.actors, rows, strict=True)
            if mine
        ]

    def submit_streams(self, method: str, table: ray.ObjectRef, parts: Sequence[Any], *more: Any) -> list[Any]:
        """As `submit_rows` for a method that yields: a generator of references for every rank that has rows."""
        return [
            getattr(actor, method).options(num_returns="streaming").remote(table, mine, *more)
            for actor, mine in zip(self.actors, parts, strict=True)
            if mine
        ]


class ColumnsInFlight:
    """Columns that a group is computing for the rows of a table."""

    def __init__(
        self, group: WorkerGroup[Any], method: str, table: ray.ObjectRef, rows: RowsOfRanks, *more: Any
    ) -> None:
        self._group = group
        self._method = method
        self._order = [row for rank in rows for row in _flat(rank)]
        self._refs = group.submit_rows(method, table, rows, *more)

    def join(self, table: pa.Table) -> pa.Table:
        """`table` with the new columns, each value at its row. Waits for all ranks."""
        return with_columns(table, self.columns(len(table)))

    def columns(self, rows: int) -> pa.Table:
        """The new columns of all `rows` rows of the table. Waits for all ranks."""
        added = pa.concat_tables(self._group.wait(self._refs, self._method))
        position = {row: index for index, row in enumerate(self._order)}
        if len(added) != rows or len(position) != rows:
            raise ValueError(f"{self._group.role}: {self._method} returned {len(added)} rows for {rows}")
        return added.take([position[row] for row in range(rows)])


def with_columns(table: pa.Table, added: pa.Table) -> pa.Table:
    """`table` and the columns of `added` beside it, row by row."""
    for name in added.column_names:
        table = table.append_column(name, added.column(name))
    return table


def _taken(name: str) -> bool:
    try:
        ray.get_actor(name)
    except ValueError:
        return False
    return True


def _flat(rows: list[Any]) -> list[int]:
    return rows_of(rows) if rows and isinstance(rows[0], list) else rows


def _environment(placement: PlacementConfig) -> dict[str, str]:
    environment = {
        "OMP_NUM_THREADS": str(placement.threads),
        "MKL_NUM_THREADS": str(placement.threads),
        "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",  # published weights are mapped by the engines, not copied
    }
    if not placement.gpus_per_rank:
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "GOMP_SPINCOUNT": _SPINS}
    return environment
