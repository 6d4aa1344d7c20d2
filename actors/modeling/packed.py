"""Packed batches: sequences laid end to end in one row, no padding, none able to see another.

Shapes in this file: T tokens of all sequences together, S sequences, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from actors.distributed.host_group import host_group
from actors.model_folder.checks import SCORE
from actors.modeling.attention import Packing
from actors.modeling.head import last_hidden_states, logits_of
from actors.modeling.logprobs import token_logprobs
from actors.modeling.pieces import logprobs_in_pieces
from actors.sizing.memory import LOGITS

Tokens = Sequence[int] | NDArray[np.integer[Any]]
Mask = Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]


@dataclass(frozen=True)
class PackedBatch:
    """S sequences end to end. `predict` lists the positions whose next token is to be predicted."""

    input_ids: Tensor  # (T,) int64
    lengths: tuple[int, ...]  # S lengths, their sum is T
    predict: Tensor  # (N,) int64, positions in 0..T-1

    @classmethod
    def of(cls, sequences: Sequence[Tokens], targets: Sequence[Mask] | None = None) -> PackedBatch:
        """Packs token sequences; `targets[s][t]` is 1 where token t of sequence s is to be predicted.

        Without `targets` every token but each sequence's first is. A first token is never predicted: nothing stands
        before it. Raises ValueError for an empty sequence or a mask of another length.
        """
        lengths = tuple(len(sequence) for sequence in sequences)
        if not lengths or min(lengths) == 0:
            raise ValueError(f"cannot pack {len(lengths)} sequences of lengths {lengths[:8]}: none may be empty")
        ids = torch.cat([torch.as_tensor(sequence, dtype=torch.int64) for sequence in sequences])
        if targets is None:
            mask = torch.ones(len(ids), dtype=torch.bool)
        else:
            if tuple(len(mask) for mask in targets) != lengths:
                raise ValueError("a target mask has another length than its sequence")
            mask = torch.cat([torch.as_tensor(mask, dtype=torch.bool) for mask in targets])
        starts = [0, *accumulate(lengths)][:-1]
        mask[starts] = False
        return cls(ids, lengths, mask.nonzero().squeeze(1) - 1)

    @property
    def targets(self) -> Tensor:
        """The predicted tokens themselves, (N,)."""
        return self.input_ids[self.predict + 1]

    @property
    def last_positions(self) -> Tensor:
        """Position of each sequence's last token, (S,)."""
        return torch.tensor(list(accumulate(self.lengths)), device=self.input_ids.device) - 1

    @property
    def target_counts(self) -> list[int]:
        """How many predicted tokens each sequence has; S numbers whose sum is N."""
        ends = torch.tensor(list(accumulate(self.lengths)), device=self.predict.device)
        owner = torch.searchsorted(ends, self.predict, right=True)
        return torch.bincount(owner, minlength=len(self.lengths)).tolist()

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on `device`."""
        return PackedBatch(self.input_ids.to(device), self.lengths, self.predict.to(device))

    @cached_property
    def packing(self) -> Packing:
        """Where its sequences begin and end, for attention."""
        return Packing(self.lengths, self.input_ids.device)

    def model_inputs(self) -> dict[str, Any]:
        """Keyword arguments for a Transformers decoder whose attention implementation is `packed`."""
        return {
            "input_ids": self.input_ids[None],
            "position_ids": self.packing.positions[None],
            "packing": self.packing,
            "use_cache": False,
        }


class PackedModule(torch.nn.Module):
    """A Transformers model, `model`, with a forward of our own on packed batches."""

    model: PreTrainedModel

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model


class PackedLM(PackedModule):
    """A causal language model whose forward takes a packed batch and returns what training needs of it.

    Args:
        model: whose attention implementation is `packed`.
        logits: how many elements of logits are made at a time; LOGITS of the device if None.
    """

    def __init__(self, model: PreTrainedModel, logits: int | None = None) -> None:
        super().__init__(model)
        self._logits = logits

    def forward(self, batch: PackedBatch, temperature: float = 1.0, entropy: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the predicted tokens, (N,) fp32, and the entropies of their distributions, (N,) fp32.

        Logits are made only at predicted positions: a prompt costs no vocabulary projection. Where they are too many to
        have at once, they are made a piece at a time. Entropies are an empty tensor unless asked for.
        """
        limit = self._logits or LOGITS[batch.predict.device.type]
        pieces = -(-len(batch.predict) * self.model.config.vocab_size // limit)
        output_head = self.model.get_output_embeddings()
        sharded = any(hasattr(parameter, "ds_id") for parameter in output_head.parameters())
        if sharded:  # ZeRO-3's ranks gather its weights for every piece, which all do equally often
            pieces = host_group().largest(pieces)
        if pieces <= 1:
            logits = self.model(**batch.model_inputs(), logits_to_keep=batch.predict).logits[0]  # (N, V)
            return token_logprobs(logits, batch.targets, temperature, entropy)
        hidden, decoder = last_hidden_states(self.model, batch.model_inputs())
        head = partial(logits_of, self.model, decoder)
        arguments = (hidden[batch.predict], batch.targets, temperature, entropy)
        # ZeRO-3's hooks expect one backward pass a step, so a sharded head never counts as frozen.
        frozen = not sharded and not any(parameter.requires_grad for parameter in output_head.parameters())
        return logprobs_in_pieces(head, *arguments, pieces, frozen)


LOGIT_MEAN = "logit_mean"
"""Key of a scorer's config.json: what is taken off its head's scalar, a head without bias. vLLM's pooler calls it so too."""


class PackedScorer(PackedModule):
    """A sequence classifier with one label, read as a scalar at every token (reward model and critic)."""

    def forward(self, batch: PackedBatch) -> Tensor:
        """The head's scalar after each token, less the config's `logit_mean`, (T,) fp32."""
        hidden = self.model.base_model(**batch.model_inputs()).last_hidden_state
        return self.model.get_submodule(SCORE)(hidden)[0, :, 0].float() - logit_mean(self.model.config)


def logit_mean(config: Any) -> float:
    """What is taken off the scalar of a scorer with this config; 0 for a model that says nothing of it."""
    return float(getattr(config, LOGIT_MEAN, None) or 0.0)
