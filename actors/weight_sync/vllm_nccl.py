"""Sends weights with vLLM's own NCCL transfer, directly from the policy's first GPU to the engines' GPUs."""

from __future__ import annotations

from actors.groups.group import WorkerGroup
from actors.roles.policy import Policy
from actors.roles.rollout import Rollout
from actors.weight_sync.transport import WeightTransport
from cluster.waiting import get


class VllmNcclTransport(WeightTransport):
    """Transport through vLLM's NCCL transfer group, which is opened once.

    For every version, all ranks of the policy gather the weights, and the first rank broadcasts them.
    """

    def __init__(self, policy: WorkerGroup[Policy], engines: WorkerGroup[Rollout]) -> None:
        super().__init__(policy, engines)
        address = get(policy.actors[0].address.remote(), "policy: address for the weight transfer", policy.timeout_s)
        # The policy blocks in the handshake until the engines respond, so both must be free to run.
        policy.call("open_weight_transfer", engines.actors, engines.call("processes")[0], *address)

    def send(self, version: int) -> None:
        """See `WeightTransport`."""
        self.policy.call("send_weights")
        self.engines.call("set_version", version)
