"""The critic: a language model with a scalar head, trained to predict the expected return of every prefix."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from actors.config import TrainedRoleConfig
from actors.modeling.packed import PackedBatch
from actors.roles.learner import Learner, TrainBatch
from actors.roles.worker import RunContext


class Critic(Learner):
    """One rank of the critic. Adds the column `values`: the value of the state before each response token."""

    @classmethod
    def setup_arguments(cls, role: str, context: RunContext) -> tuple[Any, ...]:
        """See `Worker`."""
        return context.roles[role], context.updates, context.seed

    def setup(self, config: TrainedRoleConfig, total_updates: int, seed: int = 0) -> None:
        """Loads the weights under ZeRO. A causal language model gets a value head initialized to zero.

        Args:
            config: the role's settings.
            total_updates: number of optimizer steps of the whole run.
            seed: of LoRA's random matrices.
        """
        from actors.modeling.packed_models import PackedScorer
        from actors.zero.loading import load_to_train
        from actors.zero.lora import add_lora
        from actors.zero.model import ZeroModel

        module = load_to_train(PackedScorer, config.model, config.zero)
        if config.lora is not None:
            add_lora(module.model, config.lora, seed)
        self.zero = ZeroModel(module, config.zero, config.optimizer, total_updates)
        self.memory = self.zero.memory

    def per_row(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Returns `values`: (N,) expected return before each response token."""
        return {"values": self.zero.forward(batch)[batch.predict]}

    def run_model(self, engine: Any, batch: TrainBatch) -> Tensor:
        """Returns the values before each response token, (N,)."""
        return engine(batch.packed)[batch.packed.predict]
