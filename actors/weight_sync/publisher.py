"""Publishes numbered versions of the weights: sends them to the engines in limited time, and checks what arrived."""

from __future__ import annotations

import time
from dataclasses import dataclass

from actors.config import PublishConfig
from actors.groups.group import WorkerGroup
from actors.groups.turns import Turns
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
    """Allowed rounding difference of a token's log-probability, in nats, for the coarser dtype of engine and policy.

    The difference between two correct implementations grows with a model's depth and width, so it is measured on the
    first published version. The first version may differ by up to `largest`; later versions by up to `factor` times the
    first version's difference or, if that is larger, up to `least`.
    """

    least: float
    largest: float
    factor: float = 4.0


ROUNDING = {"float32": Rounding(1e-4, 2e-3), "bfloat16": Rounding(0.05, 0.5)}


class PublishError(RunError):
    """An engine does not compute with the published weights; the message names engine and version."""


@dataclass(frozen=True)
class Published:
    """Result of one publish."""

    version: int
    seconds: float  # duration of the transfer, without the check
    drift: float  # largest difference of a probe token's log-probability between an engine and the policy, nats


class Publisher:
    """Sends versions of the policy's weights to the engines, and compares engines and policy after each.

    The bits of all weights must be equal, and the log-probabilities of a probe within rounding.
    """

    def __init__(
        self,
        config: PublishConfig,
        policy: WorkerGroup[Policy],
        engines: WorkerGroup[Rollout],
        probe: list[list[int]],
        dtype: str = "float32",
        turns: Turns | None = None,
    ) -> None:
        """Opens the transport.

        Args:
            config: transport, time limit, and tolerance.
            policy: the policy's processes.
            engines: the rollout's processes.
            probe: sequences of two or more token ids, which engines and policy both score after every publish.
            dtype: the coarser dtype of engines and policy.
            turns: the turns of roles that share GPUs, if they take any.
        """
        self._tolerance, self._rounding = config.tolerance, ROUNDING[dtype]
        self._policy, self._engines, self._probe, self._timeout_s = policy, engines, probe, config.timeout_s
        self._turns = turns or Turns({})
        self.transport = TRANSPORTS[config.transport](policy, engines)

    def publish(self, version: int) -> Published:
        """Sends the policy's current weights as version `version`, and checks every engine.

        Raises:
            PublishError: an engine holds other weights or another version, or differs on the probe by more than the
                tolerance.
            RoleError: transfer and check together took longer than the config's `timeout_s`, or a role failed.
        """
        start = time.monotonic()
        with self._policy.within(self._timeout_s), self._engines.within(self._timeout_s):
            self._turns.take({"policy": "weights", "rollout": "weights"})
            self.transport.send(version)
            self._require_equal_bits(version)
            return Published(version, time.monotonic() - start, self.check(version))

    def _require_equal_bits(self, version: int) -> None:
        """Compares the sum of the bits of all weights that the policy sent with what every engine holds.

        Unlike the probe, this is exact in every dtype.

        Raises:
            PublishError: the sums differ; the message names the engine.
        """
        expected = self._policy.call("sent_bits")[0]
        for index, held in enumerate(self._engines.call("held_bits")):
            if held != expected:
                raise PublishError(
                    f"rollout-{index} does not hold weights version {version}: the bits of its weights add up to {held}, "
                    f"those of the weights that were sent to {expected}"
                )

    def check(self, version: int) -> float:
        """Compares every engine with the policy on the probe; returns the largest log-probability difference, in nats.

        The first check sets the tolerance of later ones if the config has none.

        Raises:
            PublishError: an engine holds another version, or differs by more than the tolerance; the message names the
                engine.
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
