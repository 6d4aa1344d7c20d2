"""The processes of one role: a group of Ray actors in the role's own or a shared placement group."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.config import PlacementConfig
from actors.groups.batching import rows_of
from actors.groups.colocation import PlacementGroupSpec
from actors.groups.turns import Turns
from actors.roles.worker import Worker
from actors.table import extended
from cluster.environment import for_computing
from cluster.liveness.watch import Watch
from cluster.waiting import RoleError, get, next_of

STOP_TIMEOUT_S = 30.0

W = TypeVar("W", bound=Worker)
RowsOfRanks = list[list[int]] | list[list[list[int]]]  # rank -> rows, or rank -> micro-batch -> rows


class WorkerGroup(Generic[W]):
    """The ranks of one role. Calls go to all ranks; results are in rank order."""

    def __init__(
        self,
        run: str,
        role: str,
        worker: type[W],
        spec: PlacementGroupSpec,
        group: PlacementGroup,
        timeout_s: float,
        calls_at_once: int = 1,
        watch: Watch | None = None,
        turns: Turns | None = None,
    ) -> None:
        """Starts the processes, named RUN/ROLE-RANK; the Ray dashboard shows their class and name.

        Args:
            run: the run's name.
            role: the role's name.
            worker: class of the processes.
            spec: specification of the placement group; rank i gets its share of bundle i.
            group: the placement group reserved for `spec`.
            timeout_s: longest wait for one call, in seconds.
            calls_at_once: concurrent calls of one process.
            watch: polled during waits, so that a wait for a hung process fails early.
            turns: gives this role its turn on GPUs that it shares, before a call that needs their memory.
        """
        self.role, self.timeout_s, self.watch, self._turns = role, timeout_s, watch, turns
        self._until: float | None = None
        self.ranks = spec.roles[role].ranks
        self.names = [f"{run}/{role}-{rank}" for rank in range(self.ranks)]
        self._run, self._worker, self._calls_at_once = run, worker, calls_at_once
        self._spec, self._group = spec, group
        self.actors: list[ActorHandle] = [self._start(rank) for rank in range(self.ranks)]

    def _start(self, rank: int) -> ActorHandle:
        placement, share = self._spec.roles[self.role], self._spec.shares(self.role)[rank]
        actor = (
            ray.remote(self._worker)
            .options(
                name=self.names[rank],
                num_cpus=share["CPU"],
                num_gpus=share["GPU"],
                max_concurrency=self._calls_at_once,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank),
                runtime_env={"env_vars": _environment(placement, self._worker)},
            )
            .remote(placement.threads, (self._run, self.role, rank))
        )
        if self.watch:
            self.watch.expect((self.role, rank), actor)
        return actor

    def stop(self, ranks: Sequence[int] | None = None) -> None:
        """Kills all processes or those of `ranks`, including dead and hung ones; returns when their names are free.

        Raises RoleError if a process does not end within `STOP_TIMEOUT_S`.
        """
        ranks = range(self.ranks) if ranks is None else ranks
        for rank in ranks:
            ray.kill(self.actors[rank])
        until = time.monotonic() + STOP_TIMEOUT_S
        for rank in ranks:
            while _taken(self.names[rank]):
                if time.monotonic() > until:
                    raise RoleError(f"{self.names[rank]}: still there {STOP_TIMEOUT_S:.0f} s after it was ended")
                time.sleep(0.02)

    def start_again(self, ranks: Sequence[int]) -> None:
        """Starts new processes for `ranks`, whose old ones were stopped. They have loaded no model yet."""
        for rank in ranks:
            self.actors[rank] = self._start(rank)

    def join_world(self) -> None:
        """Joins all ranks in one torch.distributed world."""
        host, port = get(self.actors[0].address.remote(), f"{self.role}: start", self.timeout_s, self.poll)
        self.wait(
            [a.join.remote(rank, self.ranks, host, port, self.timeout_s) for rank, a in enumerate(self.actors)], "join"
        )

    def poll(self) -> None:
        """Raises RoleDied if a process of this role hangs."""
        if self.watch:
            self.watch.poll((self.role,))

    def submit(self, method: str, *arguments: Any, ranks: Sequence[int] | None = None) -> list[ray.ObjectRef]:
        """Calls `method` on every rank, or on `ranks`, with the same arguments; blocks only for its turn."""
        self._take_turn(method)
        chosen = range(self.ranks) if ranks is None else ranks
        return [getattr(self.actors[rank], method).remote(*arguments) for rank in chosen]

    def wait(self, refs: list[ray.ObjectRef], doing: str) -> list[Any]:
        """Waits for `refs` and returns their values, in order; `doing` names the work in errors.

        Raises:
            RoleDied: the wait timed out, or a rank is dead or hung; the message names the role.
        """
        return get(refs, f"{self.role}: {doing}", self._longest_wait(), self.poll)

    def next_of(self, stream: Any, doing: str) -> ray.ObjectRef | None:
        """Returns the next result of a streaming call, None after the last. Waits and raises like `wait`."""
        return next_of(stream, f"{self.role}: {doing}", self._longest_wait(), self.poll)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Limits all waits for this role inside the block to `seconds` in total; each keeps its usual limit as well."""
        self._until = time.monotonic() + seconds
        try:
            yield
        finally:
            self._until = None

    def _take_turn(self, method: str) -> None:
        if self._turns is not None:
            self._turns.need(self.role, getattr(getattr(self._worker, method), "needs", "all"))

    def _longest_wait(self) -> float:
        if self._until is None:
            return self.timeout_s
        return min(self.timeout_s, max(0.0, self._until - time.monotonic()))

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Calls `method` on every rank, waits, and returns the results; see `wait`."""
        return self.wait(self.submit(method, *arguments), method)

    def submit_rows(self, method: str, table: ray.ObjectRef, rows: Sequence[Any], *more: Any) -> list[ray.ObjectRef]:
        """Calls `method(table, rows[rank], *more)` on every rank that has rows; blocks only for its turn."""
        self._take_turn(method)
        return [
            getattr(actor, method).remote(table, mine, *more)
            for actor, mine in zip(self.actors, rows, strict=True)
            if mine
        ]

    def submit_streams(self, method: str, table: ray.ObjectRef, parts: Sequence[Any], *more: Any) -> list[Any]:
        """Calls a generator method on every rank that has rows; returns one generator of references for each."""
        self._take_turn(method)
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
        """Waits for all ranks and returns `table` with the new columns, in its row order."""
        return extended(table, self.columns(len(table)), self._group.role)

    def columns(self, rows: int) -> pa.Table:
        """Waits for all ranks and returns the new columns of all `rows` rows of the table, in order.

        Raises ValueError if the ranks returned other rows.
        """
        added = pa.concat_tables(self._group.wait(self._refs, self._method))
        position = {row: index for index, row in enumerate(self._order)}
        if len(added) != rows or len(position) != rows:
            raise ValueError(f"{self._group.role}: {self._method} returned {len(added)} rows for {rows}")
        return added.take([position[row] for row in range(rows)])


def joined(table: pa.Table, pending: Iterable[ColumnsInFlight]) -> pa.Table:
    """Waits for all pending columns and returns `table` with them."""
    for columns in pending:
        table = columns.join(table)
    return table


def _taken(name: str) -> bool:
    try:
        ray.get_actor(name)
    except ValueError:
        return False
    return True


def _flat(rows: list[Any]) -> list[int]:
    return rows_of(rows) if rows and isinstance(rows[0], list) else rows


def _environment(placement: PlacementConfig, worker: type[Worker]) -> dict[str, str]:
    environment = for_computing(placement.threads, placement.on_gpus, worker.runs_vllm)
    environment["RAY_ENABLE_ZERO_COPY_TORCH_TENSORS"] = "1"  # published weights are mapped by the engines, not copied
    return environment
