"""The roles of RLHF on one cluster, each in its own placement group or in one that it shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from actors.answers import Answers
from actors.batching import Plan, forward_rows, minibatch_plans, row_chunks, rows_at
from actors.colocation import Site
from actors.critic import Critic
from actors.diverged import DivergedError, NotFiniteError
from actors.group import ColumnsInFlight, WorkerGroup
from actors.judge import JudgeWorker
from actors.learner import TrainBatch, Update
from actors.policy import Policy
from actors.reference import Reference
from actors.reward import Reward
from actors.rollout import Rollout
from actors.rows import lengths
from actors.scoring import Samples, Scoring
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
FROZEN = ("reference", "reward", "judge")


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

    def calls_at_once(self, role: str) -> int:
        """How many calls a process of `role` takes at a time."""
        return self.roles["rollout"].calls_at_once if role == "rollout" else 1


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
                        config.run,
                        role,
                        WORKERS[role],
                        site,
                        reserved,
                        config.call_timeout_s,
                        config.calls_at_once(role),
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
            "rollout": (roles["policy"].model, config.seed, config.native_transfer, roles["rollout"].in_flight),
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

    def start_generating(
        self, prompts: pa.Table, version: int, samples: Samples, roles: Sequence[str] = FROZEN
    ) -> Answers:
        """Has every row of `prompts` answered with weights `version`, and scored by `roles` as answers come in."""
        chunks = self._chunks(prompts)
        return Answers(self.rollout, prompts, chunks, version, self._scoring(roles, samples, len(chunks)))

    def score(self, table: pa.Table, samples: Samples, asked: Scoring | None = None) -> pa.Table:
        """Adds every column that is wanted before learning and not there: `ref_logprobs`, `values`, `logprobs`, rewards.

        The roles compute at the same time; `asked` is what answers were scored by already as they came in, if they
        were. `samples` puts rows in words for the judge.
        """
        shared = ray.put(table)
        learners = ("critic",) if self.config.knows_logprobs else LEARNERS
        flying: list[ColumnsInFlight | Scoring] = [
            ColumnsInFlight(self.groups[role], "add_columns", shared, forward_rows(self._plans(role, table)))
            for role in learners
            if role in self.groups
        ]
        if asked is None:
            rewarded = any(name.startswith("reward_") for name in table.column_names)
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

    def learn(
        self, table: pa.Table, losses: Mapping[str, Loss[TrainBatch]], epochs: int
    ) -> dict[str, list[dict[str, float]]]:
        """Optimiser steps of the roles in `losses` ("policy", "critic") at the same time: figures of each, by role.

        Raises DivergedError, with the rows of `table` concerned, where a role's loss or gradient is not finite.
        """
        shared = ray.put(table)
        waiting = []
        for role, loss in losses.items():
            plans = self._plans(role, table)
            updates = [[Update(plan[rank]) for plan in plans] * epochs for rank in range(len(plans[0]))]
            group = self.groups[role]
            waiting.append((role, plans, group.submit_rows("learn", shared, updates, loss)))
        figures = {}
        for role, plans, refs in waiting:
            try:
                figures[role] = self.groups[role].wait(refs, "learn")[0]
            except NotFiniteError as error:
                rows = rows_at(plans[error.update % len(plans)], error.micro_batches)
                raise DivergedError(role, str(error), table.take(rows)) from error
        return figures

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
