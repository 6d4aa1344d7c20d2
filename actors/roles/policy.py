"""The policy: the language model that PPO trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from actors.config import TrainedRoleConfig
from actors.distributed.devices import device, to_host
from actors.modeling.packed import PackedBatch
from actors.roles.learner import Learner, TrainBatch
from actors.roles.worker import RunContext, needs
from actors.weight_bits import SentBits


class Policy(Learner):
    """One rank of the policy. Adds the column `logprobs`, and with LoRA also `ref_logprobs` if its base is the reference."""

    @classmethod
    def setup_arguments(cls, role: str, context: RunContext) -> tuple[Any, ...]:
        """See `Worker`."""
        rollout = context.roles["rollout"]
        engines = rollout.temperature, rollout.engine.dtype
        return context.roles[role], context.updates, *engines, context.seed, context.policy_columns

    def setup(
        self,
        config: TrainedRoleConfig,
        total_updates: int,
        temperature: float,
        engine_dtype: str,
        seed: int = 0,
        columns: tuple[str, ...] = ("logprobs",),
    ) -> None:
        """Loads the weights under ZeRO.

        Args:
            config: the role's settings.
            total_updates: number of optimizer steps of the whole run.
            temperature: the rollout's, so that log-probabilities match sampling.
            engine_dtype: the engines', in which the bits of sent weights are compared.
            seed: of LoRA's random matrices.
            columns: which columns to add.
        """
        from actors.modeling.packed_models import PackedLM
        from actors.zero.loading import load_to_train
        from actors.zero.lora import add_lora
        from actors.zero.model import ZeroModel

        module = load_to_train(PackedLM, config.model, config.zero)
        if config.lora is not None:
            add_lora(module.model, config.lora, seed)
        self._columns = columns
        self.temperature, self._sent = temperature, SentBits(getattr(torch, engine_dtype))
        self.zero = ZeroModel(module, config.zero, config.optimizer, total_updates)
        self.memory = self.zero.memory

    def per_row(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Returns `logprobs`, `ref_logprobs`, or both: (N,) log-probability of each response token, nats."""
        from actors.zero.lora import without_lora

        columns = {}
        if "logprobs" in self._columns:
            columns["logprobs"], _ = self.zero.forward(batch, self.temperature)
        if "ref_logprobs" in self._columns:
            with without_lora(self.zero.model):
                columns["ref_logprobs"], _ = self.zero.forward(batch, self.temperature)
        return columns

    def run_model(self, engine: Any, batch: TrainBatch) -> Any:
        """Returns the log-probability and entropy of each response token, (N,) each, nats."""
        return engine(batch.packed, self.temperature, True)

    @needs("weights")
    def probe(self, sequences: list[list[int]]) -> list[list[float]]:
        """Returns the log-probabilities of every token but the first of each sequence, in nats, at temperature 1."""
        batch = PackedBatch.of(sequences).to(device())
        logprobs, _ = self.zero.forward(batch)
        return [part.tolist() for part in logprobs.split(batch.target_counts)]

    @needs("weights")
    def weight_blocks(self) -> Iterator[dict[str, Tensor]]:
        """Yields the full weights, as a checkpoint contains them, block by block on the first rank.

        Collective: all ranks must iterate.
        """
        for block in self._sent.over_blocks(self.zero.checkpoint_blocks()):
            yield block if device().type == "cpu" else to_host(block)

    @needs("nothing")
    def sent_bits(self) -> int:
        """Returns the sum of the bits of the weights that this rank sent last, in the engines' dtype."""
        return self._sent.total

    @needs("nothing")
    def open_weight_transfer(self, engines: list[Any], ranks: int, host: str, port: int) -> None:
        """Joins vLLM's NCCL transfer group: the sender, which is this role's first rank, and `ranks` GPUs per engine."""
        from actors.zero.sharded_source import open_sender

        self._sender = open_sender(self.zero, self._sent, engines, ranks, host, port)

    @needs("weights")
    def send_weights(self) -> None:
        """Broadcasts the full weights to the engines. All ranks must call it: gathering is collective."""
        self._sender.send_weights()
