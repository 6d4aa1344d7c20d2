"""Reward model: a scalar head on a causal model, trained on preference pairs with the Bradley-Terry loss.

The score of a response is the head's output at its last token, which is the end token unless the response is truncated.
The Bradley-Terry loss depends only on differences, so the scores' mean and scale are arbitrary. The export normalizes
them, so that the scores of the held-out responses have mean 0 and standard deviation 1. The scale is stored in the
head's weights. Heads have no bias in Transformers and in vLLM, so the mean is stored in config.json as `logit_mean`;
all code of this project that reads scores subtracts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from actors.model_folder.checks import HEAD
from data.pairs import length_baseline
from trainers.config.supervised import RewardConfig
from trainers.runs.export import load_chat_tokenizer, require_model
from trainers.supervised.preferences import encode_pairs
from trainers.supervised.reward_metrics import Scored, centred_and_scaled, metrics, report
from trainers.supervised.stage import Examples, Stage, encoded, list_row

if TYPE_CHECKING:
    from actors.modeling.packed_models import PackedModule
    from trainers.supervised.pairs import PairBatch


class RewardStage(Stage[RewardConfig, "PairBatch"]):
    """The reward-model stage. A row is a pair and has one loss term."""

    heldout_columns = ("chosen_score", "rejected_score")

    def examples(self) -> Examples:
        data = self.config.data
        require_model(self.config.model, data.max_tokens, "data.max_tokens", kind="either")
        self.tokenizer = load_chat_tokenizer(self.config.model, self.config.chat)
        examples = encoded(data, partial(encode_pairs, self.tokenizer, data), self.config.seed)
        lengths = (_array(examples.heldout, f"{side}_response_tokens") for side in ("chosen", "rejected"))
        baseline = f"length baseline: {length_baseline(*lengths):.3f} of the held-out pairs are ranked correctly by length alone"
        return replace(examples, notes=(*examples.notes, baseline))

    def module(self) -> PackedModule:
        from actors.modeling.packed_models import LOGIT_MEAN, PackedScorer
        from actors.zero.loading import load_to_train

        module = load_to_train(PackedScorer, self.config.model, self.config.zero, self.config.dropout)
        # A starting reward model may have a mean, which the forward pass would subtract. The export computes a new one.
        setattr(module.model.config, LOGIT_MEAN, 0.0)
        return module

    def batch(self, table: pa.Table, rows: list[int]) -> PairBatch:
        from trainers.supervised.pairs import PairBatch

        sequences = [list_row(table, side, row) for row in rows for side in ("chosen", "rejected")]
        return PairBatch.of_pairs(sequences, [table.column("margin")[row].as_py() for row in rows])

    def run(self, engine: Any, batch: PairBatch) -> Tensor:
        """Returns the scores of the pairs, (P, 2) for chosen and rejected."""
        return batch.scores(engine(batch))

    def loss(self, outputs: Tensor, batch: PairBatch) -> Tensor:
        """Returns the sum of the pairwise loss over the pairs, from scores, (P, 2)."""
        from trainers.supervised.pairs import pair_loss

        return pair_loss(outputs, batch.margins, self.config.label_smoothing)

    def heldout_metrics(self, sums: Mapping[str, float], rows: pa.Table) -> dict[str, float]:
        return metrics(_scored(rows))

    def report(self, rows: pa.Table) -> dict[str, Any]:
        return report(_scored(rows))

    def finish(
        self, weights: dict[str, Tensor], metrics: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Scales the head, (1, hidden), so that scores have standard deviation 1, and returns their mean for config.json."""
        from actors.modeling.packed_models import LOGIT_MEAN

        scale, mean = centred_and_scaled(metrics)
        scaled = {name: tensor / scale if name == HEAD else tensor for name, tensor in weights.items()}
        return scaled, {LOGIT_MEAN: mean}


def _scored(rows: pa.Table) -> Scored:
    return Scored(
        chosen=_array(rows, "chosen_score"),
        rejected=_array(rows, "rejected_score"),
        chosen_tokens=_array(rows, "chosen_response_tokens"),
        rejected_tokens=_array(rows, "rejected_response_tokens"),
        flaws=np.array(rows.column("flaw").to_pylist()),
    )


def _array(rows: pa.Table, column: str) -> np.ndarray:
    return rows.column(column).to_numpy().astype(np.float64)
