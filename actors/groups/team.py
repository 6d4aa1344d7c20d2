"""The roles of RLHF on one cluster, each in its own placement group or in one that it shares."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from actors.groups.answers import Answers
from actors.groups.batching import Plan, forward_rows, minibatch_plans, row_chunks, rows_at, rows_of
from actors.groups.colocation import Site
from actors.groups.group import ColumnsInFlight, WorkerGroup
from actors.groups.scoring import Samples, Scoring
from actors.modeling.rows import lengths, trained_rows
from actors.roles.critic import Critic
from actors.roles.learner import TrainBatch, Update
from actors.roles.policy import Policy
from actors.roles.reference import Reference
from actors.roles.reward import Reward
from actors.roles.reward_function import JudgeWorker
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
    "judge": JudgeWorker,
    "rollout": Rollout,
}
LEARNERS = ("policy", "critic")
FROZEN = ("reference", "reward", "judge")
_DEATH_IS_REPORTED_S = 2.0
"""How long after an error that a death caused the death itself may become known."""


@dataclass(frozen=True)
class TeamConfig:
    """What the roles need to know."""

    run: str  # what placement groups and actors are named after
    roles: Mapping[str, Any]  # the settings of each role that is wanted, from actors/config.py
    sites: Sequence[Site]  # where they run, every one once
    updates: int  # optimizer steps of the whole run
    minibatches: int  # optimizer steps a pass over a step's rows
    skips_old_logprobs: bool  # whether nobody needs the policy's log-probabilities before it learns
    seed: int
    end_ids: tuple[int, ...]  # tokens that end a response
    native_transfer: str | None  # vLLM's weight-transfer backend, if the transport uses one
    start_timeout_s: float
    call_timeout_s: float
    hang_timeout_s: float = 60.0  # after its last sign of life a process counts as hung

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
        self.watch = Watch(config.run, config.hang_timeout_s)
        self.learned: set[str] = set()  # the learners whose weights are not those of the start any more
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
        """Ends all processes and gives back what was reserved."""
        for group in self.groups.values():
            group.stop()
        release(self._reserved)

    def lost(self, error: RoleDied) -> dict[str, list[int]]:
        """Whose ranks are dead or hang, by role, after `error`; where none is, all of the role that it names.

        Raises `error` if no role of the team is lost.
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
        """The ranks to restart when those of `lost` are, by role: also all others of the same world."""
        ranks = {role: self._all(role) if role in LEARNERS else list(some) for role, some in lost.items()}
        if self.config.native_transfer and ranks.keys() & {*LEARNERS, "rollout"}:
            ranks |= {role: self._all(role) for role in ("policy", "rollout")}  # one NCCL world, opened once
        return ranks

    def replace(self, ranks: Mapping[str, Sequence[int]]) -> None:
        """New processes, with their models as at the start, for `ranks`, which `together` gave.

        Where a node went, it is waited for that Ray finds its placement groups another. Raises PlacementError, or
        RoleDied where a process dies meanwhile.
        """
        for role, some in ranks.items():
            self.groups[role].stop(some)
        placed_again(self._reserved, self.config.start_timeout_s)
        for role, some in ranks.items():
            self.groups[role].start_again(some)
        self._load(ranks)
        self.learned -= ranks.keys()

    def begin_anew(self) -> None:
        """Brings policy and critic back to the weights of the start."""
        if self.learned:
            self.replace(self.together({role: self._all(role) for role in sorted(self.learned)}))

    def _all(self, role: str) -> list[int]:
        return list(range(self.groups[role].ranks))

    def _load(self, started: Mapping[str, Sequence[int]]) -> None:
        """Has the processes `started`, by role, load their models."""
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
            "judge": (),
            "policy": (config.updates, temperature),
            "critic": (config.updates, config.seed),
        }
        waiting: list[tuple[WorkerGroup[Any], list[ray.ObjectRef]]] = []
        on_shared_gpu = [role for site in config.sites for role in site.roles if site.shares_gpu(role)]
        for role, more in setups.items():
            if role in started:
                group = self.groups[role]
                if role in LEARNERS:
                    group.join_world()
                waiting.append((group, group.submit("setup", roles[role], *more, ranks=started[role])))
                if role == "rollout" and role in on_shared_gpu:
                    # An engine plans with the GPU's memory as it finds it: nobody else may be taking some just then.
                    group.wait(waiting[-1][1], "load the model")
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

    def learn(
        self, table: pa.Table, losses: Mapping[str, Loss[TrainBatch]], epochs: int
    ) -> dict[str, list[dict[str, float]]]:
        """Optimizer steps of the roles in `losses` ("policy", "critic") at the same time: figures of each, by role.

        Raises DivergedError, with the rows of `table` concerned, where a role's loss or gradient is not finite.
        """
        shared = ray.put(table)
        trained = trained_rows(table)
        self.learned |= losses.keys()
        waiting = []
        for role, loss in losses.items():
            plans = self._plans(role, table)
            learns = [any(trained[rows_of(mine)].any() for mine in plan) for plan in plans]
            updates = [
                [Update(plan[rank], learned) for plan, learned in zip(plans, learns, strict=True)] * epochs
                for rank in range(len(plans[0]))
            ]
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
        self.learned |= self.groups.keys() & {*LEARNERS}
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
