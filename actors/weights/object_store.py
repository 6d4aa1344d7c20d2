"""Weights through Ray's object store: rank 0 puts them once, every engine maps them. Runs anywhere."""

from __future__ import annotations

from actors.weights.transport import WeightTransport


class ObjectStoreTransport(WeightTransport):
    """One full copy on the policy's first rank and one in the object store of every node with an engine."""

    def send(self, version: int) -> None:
        states = self.policy.submit("full_state")  # all ranks gather; the first holds the result
        self.policy.wait(states[1:], "gather weights", partners=states)
        self.engines.call("load_weights", version, states[0])
