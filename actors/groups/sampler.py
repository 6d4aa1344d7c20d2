"""The roles of rejection sampling: engines that answer, a reward model and a judge that reward. Apart, or in one placement group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from actors.groups.batching import even_shares
from actors.groups.colocation import Site
from actors.groups.group import ColumnsInFlight, WorkerGroup
from actors.groups.scoring import Samples, Scoring
from actors.roles.reward import Reward
from actors.roles.reward_function import JudgeWorker
from actors.roles.rollout import Rollout
from actors.roles.worker import Worker
from cluster.liveness.watch import Watch
from cluster.placement import release, reserve

WORKERS: Mapping[str, type[Worker]] = {"rollout": Rollout, "reward": Reward, "judge": JudgeWorker}


@dataclass(frozen=True)
class SamplerConfig:
    """What the roles need to know."""

    run: str  # what placement groups and actors are named after
    roles: Mapping[str, Any]  # the settings of each role that is wanted, from actors/config.py
    sites: Sequence[Site]  # where they run
    seed: int
    end_ids: tuple[int, ...]  # tokens that end a response
    start_timeout_s: float
    call_timeout_s: float
    hang_timeout_s: float  # after its last sign of life a process counts as hung


class Sampler:
    """Starts the roles for one model. Close it, or use it as a context: what they hold is free for training then."""

    def __init__(self, config: SamplerConfig, model: str, version: int) -> None:
        """Engines load the weights in the folder `model`, which count as version `version`.

        Raises PlacementError or RoleError, naming the role, within the time limits of `config`.
        """
        self.config, self.version = config, version
        self.groups: dict[str, WorkerGroup[Any]] = {}
        groups = {f"{config.run}/{site.name}": site.bundles() for site in config.sites}
        self._reserved = reserve(groups, config.start_timeout_s)
        try:
            watch = Watch(config.run, config.hang_timeout_s)
            for site in config.sites:
                reserved = self._reserved[f"{config.run}/{site.name}"]
                for role in site.roles:
                    self.groups[role] = WorkerGroup(
                        config.run, role, WORKERS[role], site, reserved, config.call_timeout_s, watch=watch
                    )
            settings = config.roles["rollout"]
            engines = self.rollout.submit("setup", settings, model, config.seed, None, config.end_ids)
            if any(site.shares_gpu(role) for site in config.sites for role in site.roles):
                # An engine plans with the GPU's memory as it finds it: nobody else may be taking some just then.
                self.rollout.wait(engines, "load the model")
            for role, group in self._rewarding.items():
                group.call("setup", config.roles[role])
            self.rollout.wait(engines, "load the model")
            self.rollout.call("set_version", version)
        except BaseException:
            self.stop()
            raise

    @property
    def rollout(self) -> WorkerGroup[Rollout]:
        """The group of engines."""
        return self.groups["rollout"]

    @property
    def _rewarding(self) -> dict[str, WorkerGroup[Any]]:
        return {role: group for role, group in self.groups.items() if role != "rollout"}

    def samples(self, batches: Iterable[pa.Table], samples: Samples) -> Iterator[pa.Table]:
        """Each batch of prompts with the rollout's columns and a `reward_NAME` of every source, in turn.

        The engines are at the next batch already while one is scored and while the caller uses it. `samples` puts rows in
        words for the judge.
        """
        asked: tuple[ColumnsInFlight, pa.Table] | None = None
        for prompts in batches:
            shares = even_shares(len(prompts), self.rollout.ranks)
            answers = ColumnsInFlight(self.rollout, "generate", ray.put(prompts), shares, self.version)
            if asked is not None:
                yield self._scored(*asked, samples)
            asked = answers, prompts
        if asked is not None:
            yield self._scored(*asked, samples)

    def stop(self) -> None:
        """Ends all processes and gives back what was reserved."""
        for group in self.groups.values():
            group.stop()
        release(self._reserved)

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _scored(self, answers: ColumnsInFlight, prompts: pa.Table, samples: Samples) -> pa.Table:
        table = answers.join(prompts)
        scoring = Scoring(self._rewarding, self.config.roles, samples, chunks=1)
        scoring.ask(0, table)
        return scoring.join(table)
