"""The roles of RLHF on one cluster, each in its own or a shared placement group: start, score, update, replace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from actors.groups.batching import Plan, forward_rows, minibatch_plans, row_chunks, rows_at, rows_of
from actors.groups.colocation import PlacementGroupSpec
from actors.groups.group import ColumnsInFlight, WorkerGroup
from actors.groups.responses import ResponseCollector
from actors.groups.scoring import Samples, Scoring
from actors.modeling.rows import lengths, trained_rows
from actors.roles.critic import Critic
from actors.roles.learner import TrainBatch, Update
from actors.roles.policy import Policy
from actors.roles.reference import Reference
from actors.roles.reward import Reward
from actors.roles.reward_function import RewardFunctionWorker
from actors.roles.rollout import Rollout
from actors.roles.worker import Worker
from actors.table import reward_sources
from actors.zero.diverged import DivergedError, NotFiniteError
from actors.zero.model import Loss
from cluster.liveness.watch import Watch
from cluster.placement import placed_again, release, reserve
from cluster.waiting import RoleDied

WORKERS: dict[str, type[Worker]] = {
    "policy": Policy,
    "critic": Critic,
    "reference": Reference,
    "reward": Reward,
    "reward_function": RewardFunctionWorker,
    "rollout": Rollout,
}
LEARNERS = ("policy", "critic")
FROZEN = ("reference", "reward", "reward_function")
_DEATH_IS_REPORTED_S = 2.0
"""Seconds to wait, after an error that a process's death caused, until the death itself is reported."""


@dataclass(frozen=True)
class TeamConfig:
    """Settings of a `Team`."""

    run: str  # prefix of the names of placement groups and actors
    roles: Mapping[str, Any]  # settings of each role to start, from actors/config.py
    placement_groups: Sequence[PlacementGroupSpec]  # the placement groups; every role is in exactly one
    updates: int  # optimizer steps of the whole run
    minibatches: int  # optimizer steps per pass over a step's rows
    skips_old_logprobs: bool  # whether the policy's log-probabilities before the update are not needed
    seed: int
    end_ids: tuple[int, ...]  # tokens that end a response
    native_transfer: str | None  # vLLM's weight-transfer backend, if the transport uses one
    start_timeout_s: float
    call_timeout_s: float
    hang_timeout_s: float = 60.0  # a process is hung if it sends no heartbeat for this long

    def calls_at_once(self, role: str) -> int:
        """Concurrent calls of one process of `role`."""
        return self.roles["rollout"].calls_at_once if role == "rollout" else 1


class Team:
    """Starts all roles of RLHF and runs the algorithm's steps on them. A context manager; `stop` ends all processes."""

    def __init__(self, config: TeamConfig) -> None:
        """Reserves all placement groups, starts every process, and loads every model.

        Raises:
            PlacementError: the cluster lacks resources.
            RoleError: a role did not start. Both name the role, within the time limits of `config`.
        """
        self.config = config
        self.groups: dict[str, WorkerGroup[Any]] = {}
        self.watch = Watch(config.run, config.hang_timeout_s)
        self.updated: set[str] = set()  # the learners whose weights are no longer the initial ones
        self._reserved = reserve(
            {f"{config.run}/{spec.name}": spec.bundles() for spec in config.placement_groups}, config.start_timeout_s
        )
        try:
            for spec in config.placement_groups:
                reserved = self._reserved[f"{config.run}/{spec.name}"]
                for role in spec.roles:
                    self.groups[role] = WorkerGroup(
                        config.run,
                        role,
                        WORKERS[role],
                        spec,
                        reserved,
                        config.call_timeout_s,
                        config.calls_at_once(role),
                        self.watch,
                    )
            self._load({role: self._all(role) for role in self.groups})
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

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops all processes and releases the placement groups."""
        for group in self.groups.values():
            group.stop()
        release(self._reserved)

    def lost(self, error: RoleDied) -> dict[str, list[int]]:
        """The dead or hung ranks, by role, after `error`; if there are none, all ranks of the role that `error` names.

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

    def together(self, lost: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """The ranks to restart, by role, if those of `lost` are: includes all other ranks of the same world."""
        ranks = {role: self._all(role) if role in LEARNERS else list(some) for role, some in lost.items()}
        if self.config.native_transfer and ranks.keys() & {*LEARNERS, "rollout"}:
            ranks |= {role: self._all(role) for role in ("policy", "rollout")}  # one NCCL world, opened once
        return ranks

    def replace(self, ranks: Mapping[str, Sequence[int]]) -> None:
        """Replaces the processes of `ranks`, a result of `together`, by new ones with the initial models.

        If a node was lost, waits until Ray has placed its placement groups on another node.

        Raises:
            PlacementError: the placement groups were not placed again in time.
            RoleDied: a process died meanwhile.
        """
        for role, some in ranks.items():
            self.groups[role].stop(some)
        placed_again(self._reserved, self.config.start_timeout_s)
        for role, some in ranks.items():
            self.groups[role].start_again(some)
        self._load(ranks)
        self.updated -= ranks.keys()

    def reset_learners(self) -> None:
        """Resets policy and critic to their initial weights."""
        if self.updated:
            self.replace(self.together({role: self._all(role) for role in sorted(self.updated)}))

    def _all(self, role: str) -> list[int]:
        return list(range(self.groups[role].ranks))

    def _load(self, started: Mapping[str, Sequence[int]]) -> None:
        """Loads the models of the ranks in `started`, by role."""
        config, roles = self.config, self.config.roles
        temperature = roles["rollout"].temperature
        setups: dict[str, tuple[Any, ...]] = {
            "rollout": (
                roles["policy"].model,
                config.seed,
                config.native_transfer,
                config.end_ids,
                roles["rollout"].in_flight,
            ),
            "reference": (temperature,),
            "reward": (),
            "reward_function": (),
            "policy": (config.updates, temperature),
            "critic": (config.updates, config.seed),
        }
        waiting: list[tuple[WorkerGroup[Any], list[ray.ObjectRef]]] = []
        on_shared_gpu = [role for spec in config.placement_groups for role in spec.roles if spec.shares_gpu(role)]
        for role, more in setups.items():
            if role in started:
                group = self.groups[role]
                if role in LEARNERS:
                    group.join_world()
                waiting.append((group, group.submit("setup", roles[role], *more, ranks=started[role])))
                if role == "rollout" and role in on_shared_gpu:
                    # An engine sizes its KV cache by the free GPU memory, so no other role may allocate meanwhile.
                    group.wait(waiting[-1][1], "load the model")
        for group, refs in waiting:
            group.wait(refs, "load the model")

    def start_generating(
        self, prompts: pa.Table, version: int, samples: Samples, roles: Sequence[str] = FROZEN
    ) -> ResponseCollector:
        """Starts generating a response for every row of `prompts`, and scoring the responses as they arrive.

        Args:
            prompts: one row per response.
            version: weights version that the engines must hold.
            samples: converts rows to the samples that reward functions take.
            roles: which frozen roles score; those that were not started are ignored.
        """
        chunks = self._chunks(prompts)
        return ResponseCollector(self.rollout, prompts, chunks, version, self._scoring(roles, samples, len(chunks)))

    def score(self, table: pa.Table, samples: Samples, asked: Scoring | None = None) -> pa.Table:
        """Adds the columns that the update needs and `table` lacks: `ref_logprobs`, `values`, `logprobs`, rewards.

        The roles compute concurrently.

        Args:
            table: prompts and responses; rewards are not computed again if it has any.
            samples: converts rows to the samples that reward functions take.
            asked: scores that were already submitted while responses arrived; None submits them now.
        """
        shared = ray.put(table)
        learners = ("critic",) if self.config.skips_old_logprobs else LEARNERS
        flying: list[ColumnsInFlight | Scoring] = [
            ColumnsInFlight(self.groups[role], "add_columns", shared, forward_rows(self._plans(role, table)))
            for role in learners
            if role in self.groups
        ]
        if asked is None:
            rewarded = bool(reward_sources(table))
            chunks = self._chunks(table)
            asked = self._scoring(("reference",) if rewarded else FROZEN, samples, len(chunks))
            for number, rows in enumerate(chunks):
                asked.ask(number, table.take(rows).combine_chunks())
        for columns in (asked, *flying):
            table = columns.join(table)
        return table

    def _scoring(self, roles: Sequence[str], samples: Samples, chunks: int) -> Scoring:
        groups = {role: self.groups[role] for role in roles if role in self.groups}
        return Scoring(groups, self.config.roles, samples, chunks)

    def _chunks(self, table: pa.Table) -> list[list[int]]:
        return row_chunks(len(table), self.config.minibatches, self.config.roles["rollout"].chunk_rows)

    def update(
        self, table: pa.Table, losses: Mapping[str, Loss[TrainBatch]], epochs: int
    ) -> dict[str, list[dict[str, float]]]:
        """Runs the optimizer steps of the roles in `losses` concurrently; returns the metrics of each step, by role.

        Args:
            table: the rows of the step, with every column that the losses need.
            losses: loss function by role ("policy", "critic").
            epochs: passes over the rows.

        Raises:
            DivergedError: a role's loss or gradient is not finite; has the affected rows of `table`.
        """
        shared = ray.put(table)
        trained = trained_rows(table)
        self.updated |= losses.keys()
        waiting = []
        for role, loss in losses.items():
            plans = self._plans(role, table)
            learns = [any(trained[rows_of(mine)].any() for mine in plan) for plan in plans]
            updates = [
                [Update(plan[rank], learned) for plan, learned in zip(plans, learns, strict=True)] * epochs
                for rank in range(len(plans[0]))
            ]
            group = self.groups[role]
            waiting.append((role, plans, group.submit_rows("update", shared, updates, loss)))
        metrics = {}
        for role, plans, refs in waiting:
            try:
                metrics[role] = self.groups[role].wait(refs, "update")[0]
            except NotFiniteError as error:
                rows = rows_at(plans[error.update % len(plans)], error.micro_batches)
                raise DivergedError(role, str(error), table.take(rows)) from error
        return metrics

    def save(self, folder: Path) -> None:
        """Starts writing policy and critic below `folder`; training can continue immediately."""
        self._learners("save", folder)

    def saved(self, folder: Path) -> dict[str, str]:
        """Waits until everything is on disk; returns the SHA-256 of every file, by its path below `folder`."""
        return {
            f"{role}/{path}": digest
            for role, ranks in self._learners("saved", folder).items()
            for written in ranks
            for path, digest in written.items()
        }

    def load(self, folder: Path) -> None:
        """Restores policy and critic from what `save` wrote."""
        self.updated |= self.groups.keys() & {*LEARNERS}
        self._learners("load", folder)

    def _learners(self, method: str, folder: Path) -> dict[str, list[Any]]:
        """Calls `method` on all ranks of policy and critic with their folder; returns the results by role."""
        groups = [self.groups[role] for role in LEARNERS if role in self.groups]
        asked = [(group, group.submit(method, str(folder / group.role))) for group in groups]
        return {group.role: group.wait(refs, f"{method} a checkpoint") for group, refs in asked}

    def _plans(self, role: str, table: pa.Table) -> list[Plan]:
        settings = self.config.roles[role]
        sizes = lengths(table, "prompt", "response").tolist()
        return minibatch_plans(sizes, self.config.minibatches, settings.placement.ranks, settings.micro_batch_tokens)
