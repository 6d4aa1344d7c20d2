"""Finds the lost processes of a run: dead according to Ray, or hung, i.e. without a heartbeat for too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from cluster.head import Head, HeadError
from cluster.liveness.registry import ProcessRecord, read_records
from cluster.ray_internals import ActorTableData, draining_nodes
from cluster.waiting import POLL_S, RoleDied

Place = tuple[str, int]
"""Role and rank."""


class Watch:
    """A watch over the processes of one run, which keeps the last record of each for crash reports.

    Args:
        run: the run's name.
        limit_s: seconds without a heartbeat after which a process counts as hung.
    """

    def __init__(self, run: str, limit_s: float) -> None:
        self.run, self.limit_s = run, limit_s
        self.last: dict[Place, ProcessRecord] = {}
        self._actors: dict[Place, str] = {}  # Ray actor ID of the process of each role and rank
        self._beat: dict[str, tuple[float, float]] = {}  # actor -> its last heartbeat, and when it was first seen here
        self._looked_at = 0.0
        self._looking = threading.Lock()

    def expect(self, place: Place, actor: ActorHandle) -> None:
        """Registers `actor` as the process of this role and rank. It is watched from its first heartbeat on."""
        self._actors[place] = actor._actor_id.hex()

    def poll(self, roles: Iterable[str]) -> None:
        """Raises RoleDied if a process of `roles` hangs. Threads together query the head at most once a second."""
        if time.monotonic() - self._looked_at < POLL_S or not self._looking.acquire(blocking=False):
            return
        try:
            silent = self.silent()
        finally:
            self._looked_at = time.monotonic()
            self._looking.release()
        for (role, rank), seconds in silent.items():
            if role in roles:
                raise RoleDied(f"{role}: rank {rank} hangs: no heartbeat for {seconds:.0f} s")

    def silent(self) -> dict[Place, float]:
        """Returns the seconds since the last heartbeat of each hung process; empty if the head does not respond."""
        now = time.monotonic()
        try:
            notices = read_records(self.run, list(self._actors))
        except RayError:
            self._beat.clear()  # no heartbeat could arrive: all limits restart once the head responds
            return {}
        silent = {}
        for notice in notices:
            place = notice.role, notice.rank
            if self._actors.get(place) != notice.actor:
                continue  # a record of the process that was replaced
            self.last[place] = notice
            if self._beat.get(notice.actor, (0.0, 0.0))[0] != notice.at:
                self._beat[notice.actor] = notice.at, now  # by this machine's clock: other nodes' clocks may differ
            elif now - self._beat[notice.actor][1] > self.limit_s:
                silent[place] = now - self._beat[notice.actor][1]
        return silent

    def dead(self) -> list[Place]:
        """Returns every process that Ray reports as dead. Retries while the head does not respond.

        Raises:
            HeadError: the head has not responded for `limit_s` seconds.
        """
        until = time.monotonic() + self.limit_s
        while True:
            try:
                gone = _dead_actors()
            except HeadError:
                if time.monotonic() > until:
                    raise
                time.sleep(POLL_S)
            else:
                return sorted(place for place, actor in self._actors.items() if actor in gone)

    def leaving(self) -> str | None:
        """Returns the id of a node that is being drained and hosts the driver or a process of the run.

        A node is drained e.g. before a spot instance is reclaimed. Returns None if there is no such node.
        """
        draining = draining_nodes()
        if draining:
            self.silent()
        mine = {ray.get_runtime_context().get_node_id(), *(notice.node for notice in self.last.values())}
        return next((node for node in draining if node in mine), None)

    def last_of(self, role: str, ranks: Sequence[int]) -> list[ProcessRecord]:
        """Returns the last records of these ranks of a role; ranks without a record are omitted."""
        return [self.last[role, rank] for rank in ranks if (role, rank) in self.last]


def _dead_actors() -> set[str]:
    context = ray.get_runtime_context()
    with Head(context.gcs_address) as head:
        return {
            actor.actor_id.hex() for actor in head.actors(context.get_job_id()) if actor.state == ActorTableData.DEAD
        }
