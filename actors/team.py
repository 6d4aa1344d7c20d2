"""The roles of RLHF on one cluster, each in its own placement group or in one that it shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from actors.batching import Plan, even_shares, forward_rows, minibatch_plans
from actors.colocation import Site
from actors.critic import Critic
from actors.group import ColumnsInFlight, WorkerGroup
from actors.judge import JudgeWorker
from actors.judges.sample import Sample
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
    "judge": JudgeWorker,
    "rollout": Rollout,
}
LEARNERS = ("policy", "critic")


@dataclass(frozen=True)
class TeamConfig:
    """What the roles need to know."""

    run: str  # what placement groups and actors are named after
    roles: Mapping[str, Any]  # the settings of each role that is wanted, from actors/config.py
    sites: Sequence[Site]  # where they run, every one once
    updates: int  # optimiser steps of the whole run
    minibatches: int  # optimiser steps a pass over a step's rows
    knows_logprobs: bool  # whether nobody needs the policy's log-probabilities before it learns
    seed: int
    native_transfer: str | None  # vLLM's weight-transfer backend, if the transport uses one
    start_timeout_s: float
    call_timeout_s: float


class Team:
    """Starts the roles and speaks to them in the algorithm's words. Close it, or use it as a context."""

    def __init__(self, config: TeamConfig) -> None:
        """Reserves all placement groups, starts every process and loads every model.

        Raises PlacementError or RoleError, naming the role, within the time limits of `config`.
        """
        self.config = config
        self.groups: dict[str, WorkerGroup[Any]] = {}
        self._reserved = reserve(
            {f"{config.run}/{site.name}": site.bundles() for site in config.sites}, config.start_timeout_s
        )
        try:
            for site in config.sites:
                reserved = self._reserved[f"{config.run}/{site.name}"]
                for role in site.roles:
                    self.groups[role] = WorkerGroup(
                        config.run, role, WORKERS[role], site, reserved, config.call_timeout_s
                    )
            self._load()
        except BaseException:
            self.stop()
            raise

    @property
    def policy(self) -> WorkerGroup[Policy]:
        return self.groups["policy"]

    @property
    def rollout(self) -> WorkerGroup[Rollout]:
        return self.groups["rollout"]

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends all processes and gives back what was reserved."""
        for group in self.groups.values():
            group.stop()
        release(self._reserved)

    def _load(self) -> None:
        config, roles = self.config, self.config.roles
        temperature = roles["rollout"].temperature
        setups: dict[str, tuple[Any, ...]] = {
            "rollout": (roles["policy"].model, config.seed, config.native_transfer),
            "reference": (temperature,),
            "reward": (),
            "judge": (),
            "policy": (config.updates, temperature),
            "critic": (config.updates, config.seed),
        }
        waiting: list[tuple[WorkerGroup[Any], list[ray.ObjectRef]]] = []
        on_shared_gpu = [role for site in config.sites for role in site.roles if site.shares_gpu(role)]
        for role, more in setups.items():
            if role in roles:
                if role in LEARNERS:
                    self.groups[role].join_world()
                waiting.append((self.groups[role], self.groups[role].submit("setup", roles[role], *more)))
                if role == "rollout" and role in on_shared_gpu:
                    # An engine plans with the GPU's memory as it finds it: nobody else may be taking some just then.
                    self.groups[role].wait(waiting[-1][1], "load the model")
        for group, refs in waiting:
            group.wait(refs, "load the model")

    def start_generating(self, prompts: pa.Table, version: int) -> ColumnsInFlight:
        """Has every row of `prompts` answered with weights `version`; `join(prompts)` adds the rollout's columns."""
        rows = even_shares(len(prompts), self.rollout.ranks)
        return ColumnsInFlight(self.rollout, "generate", ray.put(prompts), rows, version)

    def reward(self, table: pa.Table, samples: list[Sample]) -> pa.Table:
        """Adds the columns `reward_NAME` of reward model and judge; `samples` are the table's rows in words."""
        return self._add(table, ("reward",), samples)

    def score(self, table: pa.Table, samples: list[Sample]) -> pa.Table:
        """Adds every column that is wanted before learning and not there: `ref_logprobs`, `values`, `logprobs`, rewards.

        The roles compute at the same time.
        """
        rewarded = any(name.startswith("reward_") for name in table.column_names)
        policy = () if self.config.knows_logprobs else ("policy",)
        if rewarded:
            return self._add(table, ("reference", "critic", *policy), [])
        return self._add(table, ("reference", "reward", "critic", *policy), samples)

    def _add(self, table: pa.Table, roles: Sequence[str], samples: list[Sample]) -> pa.Table:
        shared = ray.put(table)
        asked = [
            ColumnsInFlight(self.groups[role], "add_columns", shared, forward_rows(self._plans(role, table)))
            for role in roles
            if role in self.groups
        ]
        judge = self.groups.get("judge") if samples else None
        judged = judge.submit("judge", samples) if judge else []
        for columns in asked:
            table = columns.join(table)
        for added in judge.wait(judged, "judge") if judge else ():
            for name in added.column_names:
                table = table.append_column(name, added.column(name))
        return table

    def learn(
        self, table: pa.Table, losses: Mapping[str, Loss[TrainBatch]], epochs: int
    ) -> dict[str, list[dict[str, float]]]:
        """Optimiser steps of the roles in `losses` ("policy", "critic") at the same time: figures of each, by role."""
        shared = ray.put(table)
        waiting = []
        for role, loss in losses.items():
            plans = self._plans(role, table)
            updates = [[Update(plan[rank]) for plan in plans] * epochs for rank in range(len(plans[0]))]
            group = self.groups[role]
            waiting.append((role, group, group.submit_rows("learn", shared, updates, loss)))
        return {role: group.wait(refs, "learn")[0] for role, group, refs in waiting}

    def save(self, folder: Path) -> None:
        """Begins to write policy and critic below `folder`; they may learn on at once."""
        self._learners("save", folder)

    def saved(self, folder: Path) -> dict[str, str]:
        """Waits until all is on the disk: the SHA-256 of every file, by its path below `folder`."""
        return {
            f"{role}/{path}": digest
            for role, ranks in self._learners("saved", folder).items()
            for written in ranks
            for path, digest in written.items()
        }

    def load(self, folder: Path) -> None:
        """Restores policy and critic from what `save` wrote."""
        self._learners("load", folder)

    def _learners(self, method: str, folder: Path) -> dict[str, list[Any]]:
        """What the ranks of policy and critic answer, by role."""
        groups = [self.groups[role] for role in LEARNERS if role in self.groups]
        asked = [(group, group.submit(method, str(folder / group.role))) for group in groups]
        return {group.role: group.wait(refs, f"{method} a checkpoint") for group, refs in asked}

    def _plans(self, role: str, table: pa.Table) -> list[Plan]:
        settings = self.config.roles[role]
        sizes = lengths(table, "prompt", "response").tolist()
        return minibatch_plans(sizes, self.config.minibatches, settings.placement.ranks, settings.micro_batch_tokens)
