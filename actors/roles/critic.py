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
        return context.roles[role], context.updates

    def setup(self, config: TrainedRoleConfig, total_updates: int) -> None:
        """Loads the weights under ZeRO. A causal language model gets a value head initialized to zero."""
        from actors.modeling.packed_models import PackedScorer
        from actors.zero.loading import load_to_train
        from actors.zero.model import ZeroModel

        module = load_to_train(PackedScorer, config.model, config.zero)
        self.zero = ZeroModel(module, config.zero, config.optimizer, total_updates)
        self.memory = self.zero.memory

    def per_row(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Returns `values`: (N,) expected return before each response token."""
        return {"values": self.zero.forward(batch)[batch.predict]}

    def run_model(self, engine: Any, batch: TrainBatch) -> Tensor:
        """Returns the values before each response token, (N,)."""
        return engine(batch.packed)[batch.packed.predict]
