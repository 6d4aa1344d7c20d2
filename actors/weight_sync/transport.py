"""How new weights reach the engines: the interface that every transport keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod

from actors.groups.group import WorkerGroup
from actors.roles.policy import Policy
from actors.roles.rollout import Rollout


class WeightTransport(ABC):
    """Moves the policy's full weights into every engine.

    A transport owns the path of the bytes and nothing else: versions, the check afterwards and what to do on failure
    belong to `Publisher`. Invariant: when `send(version)` returns, every engine has taken all weights of the policy as
    they were when it was called, and says that it holds `version`; when it raises, engines may hold anything.
    """

    def __init__(self, policy: WorkerGroup[Policy], engines: WorkerGroup[Rollout]) -> None:
        self.policy = policy
        self.engines = engines

    @abstractmethod
    def send(self, version: int) -> None:
        """Brings the weights over. Waits with the groups' time limits. No engine may be generating."""
