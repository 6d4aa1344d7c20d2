"""Who of a run's processes is lost: dead, as Ray knows, or hung, as it gives no sign of life any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from cluster.head import Head, HeadError
from cluster.liveness.registry import ProcessRecord, said
from cluster.ray_internals import ActorTableData, draining_nodes
from cluster.waiting import SECONDS_BETWEEN_LOOKS, RoleDied

Place = tuple[str, int]
"""Role and rank."""


class Watch:
    """Watches over the processes of one run, and keeps the last notice of each for when it is gone.

    Args:
        run: the run's name.
        limit_s: how long after its last sign of life a process counts as hung.
    """

    def __init__(self, run: str, limit_s: float) -> None:
        self.run, self.limit_s = run, limit_s
        self.last: dict[Place, ProcessRecord] = {}
        self._actors: dict[Place, str] = {}  # Ray's id of who is there
        self._beat: dict[str, tuple[float, float]] = {}  # actor -> its last beat, and when we first saw that one
        self._looked_at = 0.0
        self._looking = threading.Lock()

    def expect(self, place: Place, actor: ActorHandle) -> None:
        """From now on `actor` is the process in this place. It is watched from its first sign of life on."""
        self._actors[place] = actor._actor_id.hex()

    def look(self, roles: Iterable[str]) -> None:
        """Raises RoleDied for a process of `roles` that hangs. Asks the head at most once a second, whoever calls."""
        if time.monotonic() - self._looked_at < SECONDS_BETWEEN_LOOKS or not self._looking.acquire(blocking=False):
            return
        try:
            silent = self.silent()
        finally:
            self._looked_at = time.monotonic()
            self._looking.release()
        for (role, rank), seconds in silent.items():
            if role in roles:
                raise RoleDied(f"{role}: rank {rank} hangs: no sign of life for {seconds:.0f} s")

    def silent(self) -> dict[Place, float]:
        """Every process that hangs, with the seconds since it was last heard of. Nobody while the head is silent too."""
        now = time.monotonic()
        try:
            notices = said(self.run, list(self._actors))
        except RayError:
            self._beat.clear()  # nobody could be heard: all have their time again once the head is back
            return {}
        silent = {}
        for notice in notices:
            place = notice.role, notice.rank
            if self._actors.get(place) != notice.actor:
                continue  # of the process that was there before
            self.last[place] = notice
            if self._beat.get(notice.actor, (0.0, 0.0))[0] != notice.at:
                self._beat[notice.actor] = notice.at, now  # by our clock: theirs may be another
            elif now - self._beat[notice.actor][1] > self.limit_s:
                silent[place] = now - self._beat[notice.actor][1]
        return silent

    def dead(self) -> list[Place]:
        """Every process that Ray knows to be dead. A head that is silent for a while is asked again.

        Raises HeadError when it stays silent for the time after which a process counts as hung.
        """
        until = time.monotonic() + self.limit_s
        while True:
            try:
                gone = _dead_actors()
            except HeadError:
                if time.monotonic() > until:
                    raise
                time.sleep(SECONDS_BETWEEN_LOOKS)
            else:
                return sorted(place for place, actor in self._actors.items() if actor in gone)

    def leaving(self) -> str | None:
        """Id of a node that Ray is emptying (a spot node's notice) and that the driver or a process of the run is on."""
        draining = draining_nodes()
        if draining:
            self.silent()
        mine = {ray.get_runtime_context().get_node_id(), *(notice.node for notice in self.last.values())}
        return next((node for node in draining if node in mine), None)

    def last_of(self, role: str, ranks: Sequence[int]) -> list[ProcessRecord]:
        """What processes in these places said last, where they said anything."""
        return [self.last[role, rank] for rank in ranks if (role, rank) in self.last]


def _dead_actors() -> set[str]:
    context = ray.get_runtime_context()
    with Head(context.gcs_address) as head:
        return {
            actor.actor_id.hex() for actor in head.actors(context.get_job_id()) if actor.state == ActorTableData.DEAD
        }
