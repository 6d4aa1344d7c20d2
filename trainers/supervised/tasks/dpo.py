"""Direct preference optimization: the model itself is trained on preference pairs, without reward model or sampling.

The loss of a pair is -log sigmoid(beta (log-ratio of the chosen answer - log-ratio of the rejected one)), where an
answer's log-ratio is log pi(answer | prompt) - log pi_ref(answer | prompt), summed over its tokens and its end mark
(Rafailov et al. 2023, "Direct Preference Optimization", eq. 7). With `label_smoothing` e the labels are taken to be
wrong with probability e: (1 - e) times that loss plus e times the loss of the pair turned round (Mitchell 2023,
"A note on DPO with noisy preferences", eq. 3).

The reference pi_ref is the starting model. It reads every pair once, before the first step (`trainers.supervised.reference_logprobs`): one
forward pass over the pairs to be learned and those held out, about a third of what an epoch of training computes. Then
two numbers a pair are kept in the run's folder, so that training holds one model, and resuming computes nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from trainers.config.supervised import DpoConfig
from trainers.runs.export import load_chat_tokenizer, require_model
from trainers.supervised.preferences import encode_pairs
from trainers.supervised.stage import Examples, Stage, from_sources, list_row, ordered

if TYPE_CHECKING:
    from actors.modeling.packed import PackedModule
    from trainers.supervised.pairs import AnswerBatch


class DpoStage(Stage[DpoConfig, "AnswerBatch"]):
    """A row is a pair, and a loss term is a pair's.

    Figures, means over pairs, in training and with `heldout_` before their names: `chosen_reward` and
    `rejected_reward`, beta times the answer's log-ratio; `margin`, their difference; `accuracy`, the share of pairs
    whose margin is above 0.
    """

    start_columns = ("ref_chosen", "ref_rejected")
    show = ("loss", "accuracy", "tokens_per_second")

    def examples(self) -> Examples:
        data = self.config.data
        require_model(self.config.model, data.max_tokens, "data.max_tokens")
        self.tokenizer = load_chat_tokenizer(self.config.model, self.config.chat)
        encode = partial(encode_pairs, self.tokenizer, data)
        train, rows, notes = from_sources(data, encode)
        heldout, note = encode("data.heldout", data.heldout)
        order, mixture = ordered(data, rows, self.config.seed)
        for name in self.start_columns:
            train, heldout = (
                table.append_column(name, pa.array(np.full(table.num_rows, np.nan, np.float32)))
                for table in (train, heldout)
            )
        notes += [f"held out: {note}", *mixture]
        notes += ["DPO does not use the pairs' margins"] if any(train.column("margin").to_pylist()) else []
        notes.append("the starting model reads the pairs once, before the first step")
        return Examples(train, heldout, order, tuple(notes))

    def module(self) -> PackedModule:
        from actors.modeling.packed import PackedLM
        from actors.zero.loading import load_to_train

        return load_to_train(PackedLM, self.config.model, self.config.zero, self.config.seed, self.config.dropout)

    def batch(self, table: pa.Table, rows: list[int]) -> AnswerBatch:
        from trainers.supervised.pairs import AnswerBatch

        sides = [(row, side) for row in rows for side in ("chosen", "rejected")]
        sequences = [list_row(table, side, row) for row, side in sides]
        answers = [table.column(f"{side}_answer")[row].as_py() for row, side in sides]
        reference = [[table.column(name)[row].as_py() for name in self.start_columns] for row in rows]
        return AnswerBatch.of_pairs(sequences, answers, torch.tensor(reference))

    def run(self, engine: Any, batch: AnswerBatch) -> Tensor:
        """Log-probabilities of the pairs' answers, (P, 2): chosen, rejected."""
        logprobs, _ = engine(batch)
        return batch.answer_logprobs(logprobs)

    def loss(self, outputs: Tensor, batch: AnswerBatch) -> Tensor:
        from trainers.supervised.pairs import dpo_loss

        return dpo_loss(outputs, batch.reference, self.config.beta, self.config.label_smoothing)

    def figures(self, outputs: Tensor, batch: AnswerBatch) -> dict[str, Tensor]:
        rewards = self.config.beta * (outputs - batch.reference).double()
        margins = rewards[:, 0] - rewards[:, 1]
        return {
            "accuracy": (margins > 0).sum(),
            "margin": margins.sum(),
            "chosen_reward": rewards[:, 0].sum(),
            "rejected_reward": rewards[:, 1].sum(),
        }

    def heldout_sums(self, outputs: Tensor, batch: AnswerBatch) -> dict[str, Tensor]:
        sums = {"loss": self.loss(outputs, batch), **self.figures(outputs, batch)}
        return {**sums, "pairs": torch.tensor(len(outputs))}

    def heldout_metrics(self, sums: Mapping[str, float], rows: pa.Table) -> dict[str, float]:
        return {f"heldout_{name}": sums[name] / sums["pairs"] for name in sums if name != "pairs"}
