"""Weights through Ray's object store: the policy puts them block by block, every engine maps them. Runs anywhere."""

from __future__ import annotations

import ray

from actors.weights.transport import WeightTransport
from cluster.waiting import RoleDied, get


class ObjectStoreTransport(WeightTransport):
    """Engines take a block while the policy gathers the next: a few blocks at a time lie in the object stores."""

    def send(self, version: int) -> None:
        limit = self.policy.timeout_s
        self.engines.call("begin_weights")
        streams = [actor.weight_blocks.options(num_returns="streaming").remote() for actor in self.policy.actors]
        taken: list[ray.ObjectRef] = []
        while True:
            ready, _ = ray.wait([streams[0]], timeout=limit, fetch_local=False)  # all ranks gather; the first has it
            if not ready:
                raise RoleDied(f"{self.policy.role}: gather weights: no answer after {limit:.0f} s")
            block = next(streams[0], None)
            if block is None:
                break
            taken += self.engines.submit("take_weights", block)
        get([stream.completed() for stream in streams], f"{self.policy.role}: gather weights", limit)
        self.engines.wait(taken, "take weights")
        self.engines.call("end_weights", version)
