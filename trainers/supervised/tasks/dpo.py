"""Direct preference optimization (DPO): trains the model on preference pairs, without a reward model or sampling.

The loss of a pair is -log sigmoid(beta (log-ratio of the chosen response - log-ratio of the rejected one)), where a
response's log-ratio is log pi(response | prompt) - log pi_ref(response | prompt), summed over its tokens including the
end token (Rafailov et al. 2023, "Direct Preference Optimization", eq. 7). With `label_smoothing` e, labels are assumed
to be wrong with probability e: the loss is (1 - e) times that loss plus e times the loss of the swapped pair (Mitchell
2023, "A note on DPO with noisy preferences", eq. 3).

The reference pi_ref is the starting model. Its log-probabilities are computed once, before the first step
(`trainers.supervised.reference_logprobs`), in one forward pass over the training and held-out pairs: about a third of
the computation of a training epoch. Two numbers per pair are stored in the run's folder, so training keeps only one
model in memory, and a resumed run does not compute them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from trainers.config.supervised import DpoConfig
from trainers.runs.export import load_chat_tokenizer, require_model
from trainers.supervised.preferences import encode_pairs
from trainers.supervised.stage import Examples, Stage, encoded, list_row

if TYPE_CHECKING:
    from actors.modeling.packed_models import PackedModule
    from trainers.supervised.pairs import ResponseBatch


class DpoStage(Stage[DpoConfig, "ResponseBatch"]):
    """The DPO stage. A row is a pair and has one loss term.

    Metrics, as means over pairs, in training and on held-out pairs (prefix `heldout_`): `chosen_reward` and
    `rejected_reward`, beta times the response's log-ratio; `margin`, their difference; `accuracy`, the share of pairs
    with a margin above 0.
    """

    start_columns = ("ref_chosen", "ref_rejected")
    show = ("loss", "accuracy", "tokens_per_second")

    def examples(self) -> Examples:
        data = self.config.data
        require_model(self.config.model, data.max_tokens, "data.max_tokens")
        self.tokenizer = load_chat_tokenizer(self.config.model, self.config.chat)
        examples = encoded(data, partial(encode_pairs, self.tokenizer, data), self.config.seed)
        train, heldout = examples.train, examples.heldout
        for name in self.start_columns:
            train, heldout = (
                table.append_column(name, pa.array(np.full(table.num_rows, np.nan, np.float32)))
                for table in (train, heldout)
            )
        notes = list(examples.notes)
        notes += ["DPO does not use the pairs' margins"] if any(train.column("margin").to_pylist()) else []
        notes.append("the starting model reads the pairs once, before the first step")
        return replace(examples, train=train, heldout=heldout, notes=tuple(notes))

    def module(self) -> PackedModule:
        from actors.modeling.packed_models import PackedLM
        from actors.zero.loading import load_to_train

        return load_to_train(PackedLM, self.config.model, self.config.zero, self.config.dropout)

    def batch(self, table: pa.Table, rows: list[int]) -> ResponseBatch:
        from trainers.supervised.pairs import ResponseBatch

        sides = [(row, side) for row in rows for side in ("chosen", "rejected")]
        sequences = [list_row(table, side, row) for row, side in sides]
        responses = [table.column(f"{side}_response_tokens")[row].as_py() for row, side in sides]
        reference = [[table.column(name)[row].as_py() for name in self.start_columns] for row in rows]
        return ResponseBatch.of_pairs(sequences, responses, torch.tensor(reference))

    def run(self, engine: Any, batch: ResponseBatch) -> Tensor:
        """Returns the log-probabilities of the pairs' responses, (P, 2) for chosen and rejected."""
        logprobs, _ = engine(batch)
        return batch.response_logprobs(logprobs)

    def loss(self, outputs: Tensor, batch: ResponseBatch) -> Tensor:
        """Returns the sum of the DPO loss over the pairs, from log-probabilities, (P, 2)."""
        from trainers.supervised.pairs import dpo_loss

        return dpo_loss(outputs, batch.reference, self.config.beta, self.config.label_smoothing)

    def metrics(self, outputs: Tensor, batch: ResponseBatch) -> dict[str, Tensor]:
        """Returns scalar sums over the pairs: implicit rewards, their margin, and how many margins are positive."""
        rewards = self.config.beta * (outputs - batch.reference).double()
        margins = rewards[:, 0] - rewards[:, 1]
        return {
            "accuracy": (margins > 0).sum(),
            "margin": margins.sum(),
            "chosen_reward": rewards[:, 0].sum(),
            "rejected_reward": rewards[:, 1].sum(),
        }

    def heldout_sums(self, outputs: Tensor, batch: ResponseBatch) -> dict[str, Tensor]:
        """Returns scalar sums over the pairs: the loss and the training metrics."""
        sums = {"loss": self.loss(outputs, batch), **self.metrics(outputs, batch)}
        return {**sums, "pairs": torch.tensor(len(outputs))}

    def heldout_metrics(self, sums: Mapping[str, float], rows: pa.Table) -> dict[str, float]:
        """Returns the means over the held-out pairs."""
        return {f"heldout_{name}": sums[name] / sums["pairs"] for name in sums if name != "pairs"}
