"""Starts the processes of all roles of a run in their placement groups, finds lost processes, and replaces them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from actors.groups.colocation import PlacementGroupSpec
from actors.groups.group import WorkerGroup
from actors.groups.turns import Turns
from actors.roles.critic import Critic
from actors.roles.policy import Policy
from actors.roles.reference import Reference
from actors.roles.reward import Reward
from actors.roles.reward_function import RewardFunctionWorker
from actors.roles.rollout import Rollout
from actors.roles.worker import RunContext, Worker
from cluster.liveness.watch import Watch
from cluster.placement import placed_again, release, reserve
from cluster.waiting import RoleDied

logger = logging.getLogger(__name__)

WORKERS: Mapping[str, type[Worker]] = {
    "rollout": Rollout,
    "reference": Reference,
    "reward": Reward,
    "reward_function": RewardFunctionWorker,
    "policy": Policy,
    "critic": Critic,
}
"""The class of every role's processes, in the order in which roles load their models."""
LEARNERS = ("policy", "critic")
_DEATH_IS_REPORTED_S = 2.0
"""Seconds to wait, after an error that a process's death caused, until the death itself is reported."""


@dataclass(frozen=True)
class RoleGroupsConfig:
    """Settings of `RoleGroups`."""

    run: str  # prefix of the names of placement groups and actors
    context: RunContext  # the roles to start, and what they need to load their models
    placement_groups: Sequence[PlacementGroupSpec]  # every role is in exactly one
    start_timeout_s: float
    call_timeout_s: float
    hang_timeout_s: float = 60.0  # a process is hung if it sends no heartbeat for this long
    sleep: bool = False  # whether roles that share GPUs take turns; see actors/groups/turns.py


class RoleGroups:
    """The worker group of every role. A context manager; `stop` ends all processes.

    Attributes:
        groups: the worker group of each role, by role.
        turns: whose turn it is on GPUs that roles share.
        watch: finds dead and hung processes.
        updated: the learners whose weights are no longer the initial ones.
    """

    def __init__(self, config: RoleGroupsConfig) -> None:
        """Reserves all placement groups, starts every process, and loads every model.

        Raises:
            PlacementError: the cluster did not provide the resources within `start_timeout_s` of `config`; the message
                names the roles.
            RoleError: a role's process died or did not load its model within `call_timeout_s` of `config`; the message
                names the role.
        """
        self.config = config
        self.groups: dict[str, WorkerGroup[Any]] = {}
        self.turns = Turns(self.groups, [spec.sharing() for spec in config.placement_groups] if config.sleep else [])
        self.watch = Watch(config.run, config.hang_timeout_s)
        self.updated: set[str] = set()
        began = time.monotonic()
        logger.info("reserving resources for %s", ", ".join(config.context.roles))
        self._reserved = reserve(
            {f"{config.run}/{spec.name}": spec.bundles() for spec in config.placement_groups}, config.start_timeout_s
        )
        try:
            for spec in config.placement_groups:
                reserved = self._reserved[f"{config.run}/{spec.name}"]
                for role in spec.roles:
                    worker = WORKERS[role]
                    calls = worker.calls_at_once(config.context.roles[role])
                    self.groups[role] = WorkerGroup(
                        config.run, role, worker, spec, reserved, config.call_timeout_s, calls, self.watch, self.turns
                    )
            logger.info("starting processes and loading models")
            self._load({role: self._all(role) for role in self.groups})
            logger.info("all roles are ready after %.0f s", time.monotonic() - began)
        except BaseException:
            self.stop()
            raise

    @property
    def policy(self) -> WorkerGroup[Policy]:
        """The group of the policy."""
        return self.groups["policy"]

    @property
    def rollout(self) -> WorkerGroup[Rollout]:
        """The group of engines."""
        return self.groups["rollout"]

    def __enter__(self) -> RoleGroups:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops all processes and releases the placement groups."""
        for group in self.groups.values():
            group.stop()
        release(self._reserved)

    def lost_ranks(self, error: RoleDied) -> dict[str, list[int]]:
        """Returns the dead or hung ranks by role after `error`; if there are none, all ranks of the role that it names.

        Raises `error` if no rank is dead or hung and `error` names no role of these groups.
        """
        until = time.monotonic() + _DEATH_IS_REPORTED_S
        while not (places := {*self.watch.silent(), *self.watch.dead()}) and time.monotonic() < until:
            time.sleep(0.2)
        lost: dict[str, list[int]] = {}
        for role, rank in sorted(places):
            lost.setdefault(role, []).append(rank)
        if not lost and error.role not in self.groups:
            raise error
        return lost or {error.role: list(range(self.groups[error.role].ranks))}

    def to_restart(self, lost: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Returns the ranks to restart, by role: those of `lost` and all other ranks of their NCCL or gloo worlds."""
        ranks = {role: self._all(role) if role in LEARNERS else list(some) for role, some in lost.items()}
        if self.config.context.native_transfer and ranks.keys() & {*LEARNERS, "rollout"}:
            ranks |= {role: self._all(role) for role in ("policy", "rollout")}  # one NCCL world, opened once
        return ranks

    def replace(self, ranks: Mapping[str, Sequence[int]]) -> None:
        """Replaces the processes of `ranks`, a result of `to_restart`, with new ones that load the initial models.

        If a node was lost, waits until Ray has placed its placement groups on another node.

        Raises:
            PlacementError: the placement groups were not placed again in time.
            RoleDied: a new process died or did not load its model in time.
        """
        for role, some in ranks.items():
            self.groups[role].stop(some)
        placed_again(self._reserved, self.config.start_timeout_s)
        for role, some in ranks.items():
            self.groups[role].start_again(some)
            self.turns.replaced(role)
        self._load(ranks)
        self.updated -= ranks.keys()

    def _all(self, role: str) -> list[int]:
        return list(range(self.groups[role].ranks))

    def _load(self, started: Mapping[str, Sequence[int]]) -> None:
        """Loads the models of the ranks in `started`, by role; roles load at the same time."""
        loading: list[tuple[WorkerGroup[Any], list[ray.ObjectRef]]] = []
        shared_gpu = any(spec.shares_gpu("rollout") for spec in self.config.placement_groups if "rollout" in spec.roles)
        for role, worker in WORKERS.items():
            if role not in started:
                continue
            group = self.groups[role]
            if worker.trains:
                group.join_world()
            arguments = worker.setup_arguments(role, self.config.context)
            loading.append((group, group.submit("setup", *arguments, ranks=started[role])))
            if role == "rollout" and shared_gpu:
                # An engine sizes its KV cache by the free GPU memory, so no other role may allocate meanwhile.
                group.wait(loading[-1][1], "load the model")
        for group, refs in loading:
            group.wait(refs, "load the model")
