"""Packed batches: sequences concatenated in one row without padding; no sequence attends to another.

Shapes in this file: T tokens of all sequences, S sequences, N predicted tokens, V vocabulary.
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
    """S concatenated sequences. `predict` lists the positions whose next token is predicted."""

    input_ids: Tensor  # (T,) int64
    lengths: tuple[int, ...]  # S lengths whose sum is T
    predict: Tensor  # (N,) int64, positions in 0..T-1

    @classmethod
    def of(cls, sequences: Sequence[Tokens], targets: Sequence[Mask] | None = None) -> PackedBatch:
        """Packs token sequences.

        Args:
            sequences: S sequences of token ids.
            targets: `targets[s][t]` is 1 where token t of sequence s is predicted. By default all tokens are. A
                sequence's first token is never predicted, because no token precedes it.

        Raises:
            ValueError: a sequence is empty, or a mask's length differs from its sequence's.
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
        """Ids of the predicted tokens, (N,) int64."""
        return self.input_ids[self.predict + 1]

    @property
    def last_positions(self) -> Tensor:
        """Position of each sequence's last token, (S,) int64."""
        return torch.tensor(list(accumulate(self.lengths)), device=self.input_ids.device) - 1

    @property
    def target_counts(self) -> list[int]:
        """Number of predicted tokens of each sequence: S numbers whose sum is N."""
        ends = torch.tensor(list(accumulate(self.lengths)), device=self.predict.device)
        owner = torch.searchsorted(ends, self.predict, right=True)
        return torch.bincount(owner, minlength=len(self.lengths)).tolist()

    def to(self, device: torch.device | str) -> PackedBatch:
        """Returns the same batch on `device`."""
        return PackedBatch(self.input_ids.to(device), self.lengths, self.predict.to(device))

    @cached_property
    def packing(self) -> Packing:
        """The boundaries of the sequences, for attention."""
        return Packing(self.lengths, self.input_ids.device)

    def model_inputs(self) -> dict[str, Any]:
        """Returns the keyword arguments for a Transformers decoder whose attention implementation is `packed`."""
        return {
            "input_ids": self.input_ids[None],
            "position_ids": self.packing.positions[None],
            "packing": self.packing,
            "use_cache": False,
        }


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
