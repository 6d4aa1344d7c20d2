"""Sends weights through Ray's object store, on CPU or GPU: the policy stores blocks, which every engine maps."""

from __future__ import annotations

import ray

from actors.weight_sync.transport import WeightTransport


class ObjectStoreTransport(WeightTransport):
    """Transport through Ray's object store: engines load one block while the policy gathers the next.

    The object stores hold a few blocks at a time.
    """

    def send(self, version: int) -> None:
        """See `WeightTransport`."""
        self.engines.call("begin_weight_load")
        streams = [actor.weight_blocks.options(num_returns="streaming").remote() for actor in self.policy.actors]
        taken: list[ray.ObjectRef] = []
        while (
            block := self.policy.next_of(streams[0], "gather weights")
        ) is not None:  # all ranks gather, the first yields
            taken += self.engines.submit("load_weight_block", block)
        self.policy.wait([stream.completed() for stream in streams], "gather weights")
        self.engines.wait(taken, "take weights")
        self.engines.call("end_weight_load", version)
