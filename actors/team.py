"""The five roles of PPO on one cluster, each in its own placement group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from actors.batching import Plan, even_shares, forward_rows, minibatch_plans
from actors.config import FrozenRoleConfig, PlacementConfig, RolloutConfig, TrainedRoleConfig
from actors.critic import Critic
from actors.group import ColumnsInFlight, WorkerGroup, bundles
from actors.learner import TrainBatch, Update
from actors.policy import Policy
from actors.reference import Reference
from actors.reward import Reward
from actors.rollout import Rollout
from actors.rows import lengths
from actors.worker import Worker
from actors.zero import Loss
from cluster.placement import release, reserve

WORKERS: dict[str, type[Worker]] = {
    "policy": Policy,
    "critic": Critic,
    "reference": Reference,
    "reward": Reward,
    "rollout": Rollout,
}


@dataclass(frozen=True)
class TeamConfig:
    """What the roles need to know; the trainer's settings hold the same sections."""

    run: str  # what placement groups and actors are named after
    policy: TrainedRoleConfig
    critic: TrainedRoleConfig
    reference: FrozenRoleConfig
    reward: FrozenRoleConfig
    rollout: RolloutConfig
    updates: int  # optimiser steps of the whole run
    minibatches: int  # optimiser steps a pass over a step's rows
    seed: int
    native_transfer: str | None  # vLLM's weight-transfer backend, if the transport uses one
    start_timeout_s: float
    call_timeout_s: float

    def placements(self) -> dict[str, PlacementConfig]:
        """Every role's placement, by role."""
        return {role: getattr(self, role).placement for role in WORKERS}


class Team:
    """Starts the roles and speaks to them in the algorithm's words. Close it, or use it as a context."""

    policy: WorkerGroup[Policy]
    critic: WorkerGroup[Critic]
    reference: WorkerGroup[Reference]
    reward: WorkerGroup[Reward]
    rollout: WorkerGroup[Rollout]

    def __init__(self, config: TeamConfig) -> None:
        """Reserves all placement groups, starts every process and loads every model.

        Raises PlacementError or RoleError, naming the role, within the time limits of `config`.
        """
        self.config = config
        placements = config.placements()
        name = {role: f"{config.run}/{role}" for role in WORKERS}
        self._reserved = reserve({name[role]: bundles(p) for role, p in placements.items()}, config.start_timeout_s)
        try:
            for role, worker in WORKERS.items():
                reserved = self._reserved[name[role]]
                setattr(
                    self, role, WorkerGroup(config.run, role, worker, placements[role], reserved, config.call_timeout_s)
                )
            self._load()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends all processes and gives back what was reserved."""
        for role in WORKERS:
            if hasattr(self, role):
                getattr(self, role).stop()
        release(self._reserved)

    def _load(self) -> None:
        config, temperature = self.config, self.config.rollout.temperature
        model = config.policy.model
        waiting: list[tuple[WorkerGroup[Any], list[ray.ObjectRef]]] = [
            (self.rollout, self.rollout.submit("setup", config.rollout, model, config.seed, config.native_transfer)),
            (self.reference, self.reference.submit("setup", config.reference, temperature)),
            (self.reward, self.reward.submit("setup", config.reward)),
        ]
        self.policy.join_world()
        waiting.append((self.policy, self.policy.submit("setup", config.policy, config.updates, temperature)))
        self.critic.join_world()
        waiting.append((self.critic, self.critic.submit("setup", config.critic, config.updates, config.seed)))
        for group, refs in waiting:
            group.wait(refs, "load the model")

    def generate(self, prompts: pa.Table, version: int) -> pa.Table:
        """Answers every row of `prompts` with weights `version`; adds the rollout's columns."""
        rows = even_shares(len(prompts), self.rollout.ranks)
        return ColumnsInFlight(self.rollout, "generate", ray.put(prompts), rows, version).join(prompts)

    def score(self, table: pa.Table) -> pa.Table:
        """Adds `ref_logprobs`, `reward`, `values` and `logprobs`; the four roles compute at the same time."""
        shared = ray.put(table)
        asked = [
            ColumnsInFlight(group, "add_columns", shared, forward_rows(self._plans(role, table)))
            for role, group in self._scorers()
        ]
        for columns in asked:
            table = columns.join(table)
        return table

    def learn(
        self, table: pa.Table, losses: Mapping[str, Loss[TrainBatch]], epochs: int
    ) -> dict[str, list[dict[str, float]]]:
        """Optimiser steps of the roles in `losses` ("policy", "critic") at the same time: figures of each, by role."""
        shared = ray.put(table)
        tokens = lengths(table, "response")
        waiting = []
        for role, loss in losses.items():
            plans = self._plans(role, table)
            totals = [int(sum(tokens[row] for rank in plan for micro in rank for row in micro)) for plan in plans]
            updates = [
                [Update(plan[rank], total) for plan, total in zip(plans, totals, strict=True)] * epochs
                for rank in range(len(plans[0]))
            ]
            group = getattr(self, role)
            waiting.append((role, group, group.submit_rows("learn", shared, updates, loss)))
        return {role: group.wait(refs, "learn")[0] for role, group, refs in waiting}

    def save(self, folder: Path) -> None:
        """Writes policy and critic below `folder`."""
        self._both("save", folder)

    def load(self, folder: Path) -> None:
        """Restores policy and critic from what `save` wrote."""
        self._both("load", folder)

    def _both(self, method: str, folder: Path) -> None:
        asked = [(group, group.submit(method, str(folder / group.role))) for group in (self.policy, self.critic)]
        for group, refs in asked:
            group.wait(refs, f"{method} a checkpoint")

    def _scorers(self) -> Sequence[tuple[str, WorkerGroup[Any]]]:
        return [(role, getattr(self, role)) for role in ("reference", "reward", "critic", "policy")]

    def _plans(self, role: str, table: pa.Table) -> list[Plan]:
        settings = getattr(self.config, role)
        sizes = lengths(table, "prompt", "response").tolist()
        return minibatch_plans(sizes, self.config.minibatches, settings.placement.ranks, settings.micro_batch_tokens)
