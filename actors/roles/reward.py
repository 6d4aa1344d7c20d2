"""The reward model: one score per response."""

from __future__ import annotations

import torch
from torch import Tensor

from actors.config import FrozenRoleConfig
from actors.device_memory import DeviceMemory, module_tensors
from actors.distributed.devices import DTYPES, device
from actors.modeling.packed import PackedBatch
from actors.roles.worker import ForwardWorker


class Reward(ForwardWorker):
    """One rank of the reward model. Adds the column `reward_model`: the head's scalar at the last token of each row."""

    memory: DeviceMemory

    def setup(self, config: FrozenRoleConfig) -> None:
        """Loads the reward model."""
        from actors.modeling.models import load_scorer
        from actors.modeling.packed_models import PackedScorer

        self.module = PackedScorer(load_scorer(config.model, DTYPES[config.dtype])).to(device()).eval()
        self.memory = DeviceMemory(lambda: module_tensors(self.module))

    @torch.no_grad()
    def per_row(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Returns `reward_model`: (S,) score of each sequence."""
        self.memory.require("weights")
        return {"reward_model": self.module(batch)[batch.last_positions]}
