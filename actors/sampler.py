"""The two roles of rejection sampling: engines that answer, a reward model that scores. Apart, or in one placement group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import ray

from actors.batching import even_shares, frozen_plan
from actors.colocation import Site
from actors.config import FrozenRoleConfig, RolloutConfig
from actors.group import ColumnsInFlight, WorkerGroup
from actors.reward import Reward
from actors.rollout import Rollout
from actors.rows import lengths
from actors.worker import Worker
from cluster.placement import release, reserve
from cluster.watch import Watch


@dataclass(frozen=True)
class SamplerConfig:
    """What the roles need to know; the trainer's settings hold the same sections."""

    run: str  # what placement groups and actors are named after
    rollout: RolloutConfig
    reward: FrozenRoleConfig
    sites: Sequence[Site]  # where both run
    seed: int
    end_ids: tuple[int, ...]  # tokens that end a response
    start_timeout_s: float
    call_timeout_s: float
    hang_timeout_s: float  # after its last sign of life a process counts as hung


class Sampler:
    """Starts both roles for one model. Close it, or use it as a context: what they hold is free for training then."""

    rollout: WorkerGroup[Rollout]
    reward: WorkerGroup[Reward]

    def __init__(self, config: SamplerConfig, model: str, version: int) -> None:
        """Engines load the weights in the folder `model`, which count as version `version`.

        Raises PlacementError or RoleError, naming the role, within the time limits of `config`.
        """
        self.config, self.version = config, version
        groups = {f"{config.run}/{site.name}": site.bundles() for site in config.sites}
        self._reserved = reserve(groups, config.start_timeout_s)
        try:
            watch = Watch(config.run, config.hang_timeout_s)
            workers: dict[str, type[Worker]] = {"rollout": Rollout, "reward": Reward}
            for site in config.sites:
                reserved = self._reserved[f"{config.run}/{site.name}"]
                for role in site.roles:
                    group = WorkerGroup(
                        config.run, role, workers[role], site, reserved, config.call_timeout_s, watch=watch
                    )
                    setattr(self, role, group)
            engines = self.rollout.submit("setup", config.rollout, model, config.seed, None, config.end_ids)
            if any(site.shares_gpu(role) for site in config.sites for role in site.roles):
                # An engine plans with the GPU's memory as it finds it: nobody else may be taking some just then.
                self.rollout.wait(engines, "load the model")
            self.reward.call("setup", config.reward)
            self.rollout.wait(engines, "load the model")
            self.rollout.call("set_version", version)
        except BaseException:
            self.stop()
            raise

    def samples(self, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Each batch of prompts with the rollout's columns and `reward`, in turn.

        The engines are at the next batch already while one is scored and while the caller uses it.
        """
        asked: tuple[ColumnsInFlight, pa.Table] | None = None
        for prompts in batches:
            shares = even_shares(len(prompts), self.rollout.ranks)
            answers = ColumnsInFlight(self.rollout, "generate", ray.put(prompts), shares, self.version)
            if asked is not None:
                yield self._scored(*asked)
            asked = answers, prompts
        if asked is not None:
            yield self._scored(*asked)

    def stop(self) -> None:
        """Ends all processes and gives back what was reserved."""
        for role in ("rollout", "reward"):
            if hasattr(self, role):
                getattr(self, role).stop()
        release(self._reserved)

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _scored(self, answers: ColumnsInFlight, prompts: pa.Table) -> pa.Table:
        table = answers.join(prompts)
        sizes = lengths(table, "prompt", "response").tolist()
        plan = frozen_plan(sizes, self.reward.ranks, self.config.reward.micro_batch_tokens)
        scored = ColumnsInFlight(self.reward, "add_columns", ray.put(table), plan).join(table)
        return scored.rename_columns({"reward_model": "reward"})
