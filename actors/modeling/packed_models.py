"""Transformers models with forward passes on packed batches: language models and scorers.

Shapes in this file: T tokens of all sequences, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from actors.distributed.host_group import host_group
from actors.model_folder.checks import SCORE
from actors.modeling.head import last_hidden_states, logits_of
from actors.modeling.logprobs import token_logprobs
from actors.modeling.packed import PackedBatch
from actors.modeling.pieces import logprobs_in_pieces
from actors.sizing.memory import LOGITS


class PackedModule(torch.nn.Module):
    """A Transformers model, `model`, with a forward pass on packed batches."""

    model: PreTrainedModel

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model


class PackedLM(PackedModule):
    """A causal language model whose forward pass returns the log-probabilities of a packed batch.

    Args:
        model: a model with the attention implementation `packed`.
        logits: maximum elements of logits in memory at a time; `LOGITS` of the device if None.
    """

    def __init__(self, model: PreTrainedModel, logits: int | None = None) -> None:
        super().__init__(model)
        self._logits = logits

    def forward(self, batch: PackedBatch, temperature: float = 1.0, entropy: bool = False) -> tuple[Tensor, Tensor]:
        """Returns log-probabilities of the predicted tokens and entropies of their distributions, (N,) fp32, in nats.

        Logits are computed only at predicted positions, so a prompt costs no vocabulary projection. If they exceed the
        limit, they are computed in pieces. Entropies are an empty tensor unless `entropy` is true.

        Args:
            batch: the packed sequences.
            temperature: logits are divided by it.
            entropy: whether to compute entropies.
        """
        limit = self._logits or LOGITS[batch.predict.device.type]
        pieces = -(-len(batch.predict) * self.model.config.vocab_size // limit)
        output_head = self.model.get_output_embeddings()
        sharded = any(hasattr(parameter, "ds_id") for parameter in output_head.parameters())
        if sharded:  # under ZeRO-3 all ranks gather the head's weights for every piece, so they need the same number
            pieces = host_group().largest(pieces)
        if pieces <= 1:
            logits = self.model(**batch.model_inputs(), logits_to_keep=batch.predict).logits[0]  # (N, V)
            return token_logprobs(logits, batch.targets, temperature, entropy)
        hidden, decoder = last_hidden_states(self.model, batch.model_inputs())
        head = partial(logits_of, self.model, decoder)
        arguments = (hidden[batch.predict], batch.targets, temperature, entropy)
        # ZeRO-3's hooks expect one backward pass per step, so a sharded head never counts as frozen.
        frozen = not sharded and not any(parameter.requires_grad for parameter in output_head.parameters())
        return logprobs_in_pieces(head, *arguments, pieces, frozen)


LOGIT_MEAN = "logit_mean"
"""Key in a scorer's config.json: a constant to subtract from its head's scalar, since the head has no bias.

vLLM's pooler uses the same key.
"""


class PackedScorer(PackedModule):
    """A sequence classifier with one label, evaluated at every token (reward model and critic)."""

    def forward(self, batch: PackedBatch) -> Tensor:
        """Returns the head's scalar after each token minus the config's `logit_mean`, (T,) fp32."""
        hidden = self.model.base_model(**batch.model_inputs()).last_hidden_state
        return self.model.get_submodule(SCORE)(hidden)[0, :, 0].float() - logit_mean(self.model.config)


def logit_mean(config: Any) -> float:
    """Returns the constant that a scorer with this config subtracts from its scalar; 0 if the config has none."""
    return float(getattr(config, LOGIT_MEAN, None) or 0.0)
