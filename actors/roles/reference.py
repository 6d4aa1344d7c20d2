"""The reference: the frozen model that the policy is kept close to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from actors.config import FrozenRoleConfig
from actors.device_memory import DeviceMemory, module_tensors
from actors.distributed.devices import DTYPES, device
from actors.modeling.packed import PackedBatch
from actors.roles.worker import ForwardWorker, RunContext


class Reference(ForwardWorker):
    """One rank of the reference. Adds the column `ref_logprobs`."""

    memory: DeviceMemory

    @classmethod
    def setup_arguments(cls, role: str, context: RunContext) -> tuple[Any, ...]:
        """See `Worker`."""
        return context.roles[role], context.roles["rollout"].temperature

    def setup(self, config: FrozenRoleConfig, temperature: float) -> None:
        """Loads the model. Logits are divided by `temperature`, which is the rollout's."""
        from actors.modeling.models import load_causal_lm
        from actors.modeling.packed_models import PackedLM

        self.module = PackedLM(load_causal_lm(config.model, DTYPES[config.dtype])).to(device()).eval()
        self.memory = DeviceMemory(lambda: module_tensors(self.module))
        self.temperature = temperature

    @torch.no_grad()
    def per_row(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Returns `ref_logprobs`: (N,) log-probability of each response token, nats."""
        self.memory.require("weights")
        logprobs, _ = self.module(batch, self.temperature)
        return {"ref_logprobs": logprobs}
