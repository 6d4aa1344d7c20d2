"""The roles of rejection sampling: engines that generate responses, and reward model and functions that score them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from actors.groups.batching import even_shares
from actors.groups.colocation import PlacementGroupSpec
from actors.groups.group import ColumnsInFlight, WorkerGroup
from actors.groups.scoring import Samples, Scoring
from actors.roles.reward import Reward
from actors.roles.reward_function import RewardFunctionWorker
from actors.roles.rollout import Rollout
from actors.roles.worker import Worker
from cluster.liveness.watch import Watch
from cluster.placement import release, reserve

WORKERS: Mapping[str, type[Worker]] = {"rollout": Rollout, "reward": Reward, "reward_function": RewardFunctionWorker}


@dataclass(frozen=True)
class SamplerConfig:
    """Settings of a `Sampler`."""

    run: str  # prefix of the names of placement groups and actors
    roles: Mapping[str, Any]  # settings of each role to start, from actors/config.py
    placement_groups: Sequence[PlacementGroupSpec]  # the placement groups of the roles
    seed: int
    end_ids: tuple[int, ...]  # tokens that end a response
    start_timeout_s: float
    call_timeout_s: float
    hang_timeout_s: float  # a process is hung if it sends no heartbeat for this long


class Sampler:
    """Runs the roles of rejection sampling for one model. A context manager; `stop` frees resources for training."""

    def __init__(self, config: SamplerConfig, model: str, version: int) -> None:
        """Starts the roles. Engines load the weights in the folder `model`, which count as version `version`.

        Raises:
            PlacementError: the cluster lacks resources.
            RoleError: a role did not start. Both within the time limits of `config`.
        """
        self.config, self.version = config, version
        self.groups: dict[str, WorkerGroup[Any]] = {}
        groups = {f"{config.run}/{spec.name}": spec.bundles() for spec in config.placement_groups}
        self._reserved = reserve(groups, config.start_timeout_s)
        try:
            watch = Watch(config.run, config.hang_timeout_s)
            for spec in config.placement_groups:
                reserved = self._reserved[f"{config.run}/{spec.name}"]
                for role in spec.roles:
                    self.groups[role] = WorkerGroup(
                        config.run, role, WORKERS[role], spec, reserved, config.call_timeout_s, watch=watch
                    )
            settings = config.roles["rollout"]
            engines = self.rollout.submit("setup", settings, model, config.seed, None, config.end_ids)
            if any(spec.shares_gpu(role) for spec in config.placement_groups for role in spec.roles):
                # An engine sizes its KV cache by the free GPU memory, so no other role may allocate meanwhile.
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
        """Yields each batch of prompts, in order, with the rollout's columns and a `reward_NAME` of every source.

        The engines already generate the next batch while one is scored and while the caller uses it.

        Args:
            batches: tables of prompts.
            samples: converts rows to the samples that reward functions take.
        """
        asked: tuple[ColumnsInFlight, pa.Table] | None = None
        for prompts in batches:
            shares = even_shares(len(prompts), self.rollout.ranks)
            responses = ColumnsInFlight(self.rollout, "generate", ray.put(prompts), shares, self.version)
            if asked is not None:
                yield self._scored(*asked, samples)
            asked = responses, prompts
        if asked is not None:
            yield self._scored(*asked, samples)

    def stop(self) -> None:
        """Stops all processes and releases the placement groups."""
        for group in self.groups.values():
            group.stop()
        release(self._reserved)

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _scored(self, responses: ColumnsInFlight, prompts: pa.Table, samples: Samples) -> pa.Table:
        table = responses.join(prompts)
        scoring = Scoring(self._rewarding, self.config.roles, samples, chunks=1)
        scoring.ask(0, table)
        return scoring.join(table)
