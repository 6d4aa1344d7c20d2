"""Weights through Ray's object store: the policy puts them block by block, every engine maps them. Runs anywhere."""

from __future__ import annotations

import ray

from actors.weight_sync.transport import WeightTransport


class ObjectStoreTransport(WeightTransport):
    """Engines take a block while the policy gathers the next: a few blocks at a time lie in the object stores."""

    def send(self, version: int) -> None:
        """See `WeightTransport`."""
        self.engines.call("begin_weights")
        streams = [actor.weight_blocks.options(num_returns="streaming").remote() for actor in self.policy.actors]
        taken: list[ray.ObjectRef] = []
        while (block := self.policy.next_of(streams[0], "gather weights")) is not None:  # all gather; the first has it
            taken += self.engines.submit("take_weights", block)
        self.policy.wait([stream.completed() for stream in streams], "gather weights")
        self.engines.wait(taken, "take weights")
        self.engines.call("end_weights", version)
