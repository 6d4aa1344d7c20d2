"""The interface of weight transports, which send new weights to the engines."""

from __future__ import annotations

from abc import ABC, abstractmethod

from actors.groups.group import WorkerGroup
from actors.roles.policy import Policy
from actors.roles.rollout import Rollout


class WeightTransport(ABC):
    """Base class of weight transports, which send the policy's full weights to every engine.

    A transport is responsible for the transfer only; `Publisher` handles versions, the check afterwards, and failures.
    Invariant: when `send(version)` returns, every engine has loaded all weights that the policy had at the call, and
    reports `version`; when it raises, the engines' weights are undefined.
    """

    def __init__(self, policy: WorkerGroup[Policy], engines: WorkerGroup[Rollout]) -> None:
        self.policy = policy
        self.engines = engines

    @abstractmethod
    def send(self, version: int) -> None:
        """Sends the weights and labels them `version` in every engine. Waits within the groups' time limits.

        No engine may be generating, except with in-flight weight updates.
        """
