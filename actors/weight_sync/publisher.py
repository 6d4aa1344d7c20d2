"""Publishing: a numbered version of the weights, moved within a time limit and checked on a probe."""

from __future__ import annotations

import time
from dataclasses import dataclass

from actors.config import PublishConfig
from actors.groups.group import WorkerGroup
from actors.roles.policy import Policy
from actors.roles.rollout import Rollout
from actors.weight_sync.object_store import ObjectStoreTransport
from actors.weight_sync.transport import WeightTransport
from actors.weight_sync.vllm_nccl import VllmNcclTransport
from configs.errors import RunError

TRANSPORTS: dict[str, type[WeightTransport]] = {
    "object_store": ObjectStoreTransport,
    "vllm_nccl": VllmNcclTransport,
}


@dataclass(frozen=True)
class Rounding:
    """How far two right programs may be apart on a token's log-probability, in nats, by the coarser of their dtypes.

    It grows with a model's depth and width, so it is measured on the first version that is published: that may differ by
    `largest`, later ones by `factor` times as much as it did, at least by `least`.
    """

    least: float
    largest: float
    factor: float = 4.0


ROUNDING = {"float32": Rounding(1e-4, 2e-3), "bfloat16": Rounding(0.05, 0.5)}


class PublishError(RunError):
    """An engine does not compute with the weights that were published; the message names engine and version."""


@dataclass(frozen=True)
class Published:
    """What one publish did."""

    version: int
    seconds: float
    drift: float  # largest difference of a probe token's log-probability between an engine and the policy


class Publisher:
    """Brings versions of the policy into the engines and trusts none before the probe has agreed."""

    def __init__(
        self,
        config: PublishConfig,
        policy: WorkerGroup[Policy],
        engines: WorkerGroup[Rollout],
        probe: list[list[int]],
        dtype: str = "float32",
    ) -> None:
        """Compares engines and policy, whose coarser dtype is `dtype`.

        `probe`: token sequences, two tokens or longer, that engine and policy both score after every publish.
        """
        self._tolerance, self._rounding = config.tolerance, ROUNDING[dtype]
        self._policy, self._engines, self._probe, self._timeout_s = policy, engines, probe, config.timeout_s
        self.transport = TRANSPORTS[config.transport](policy, engines)

    def publish(self, version: int) -> Published:
        """Sends and checks version `version`.

        Raises PublishError when an engine answers with another version or differs on the probe by more than the
        tolerance; RoleError when a role has not answered after `timeout_s` seconds of the config in all.
        """
        start = time.monotonic()
        with self._policy.within(self._timeout_s), self._engines.within(self._timeout_s):
            self.transport.send(version)
            return Published(version, time.monotonic() - start, self.check(version))

    def check(self, version: int) -> float:
        """Compares every engine with the policy on the probe; returns the largest difference of a log-probability.

        Raises PublishError, naming the engine.
        """
        allowed = self._rounding.largest if self._tolerance is None else self._tolerance
        mine = self._policy.submit("probe", self._probe)
        theirs = self._engines.call("probe", self._probe)
        expected = [value for sequence in self._policy.wait(mine, "probe")[0] for value in sequence]
        worst = 0.0
        for index, (held, scores) in enumerate(theirs):
            if held != version:
                raise PublishError(
                    f"rollout-{index} holds weights version {held} after version {version} was published"
                )
            got = [value for sequence in scores for value in sequence]
            drift = max(abs(a - b) for a, b in zip(expected, got, strict=True))
            if not drift <= allowed:
                raise PublishError(
                    f"rollout-{index} does not compute with weights version {version}: its log-probabilities differ "
                    f"from the policy's by up to {drift:.3g} on the probe, {allowed:g} is allowed"
                )
            worst = max(worst, drift)
        if self._tolerance is None:
            self._tolerance = max(self._rounding.least, self._rounding.factor * worst)
        return worst
