"""Reward model: a scalar head on a causal model, trained on preference pairs with the Bradley-Terry loss.

    python -m trainers.reward --config configs/laptop.yaml [--a.b=value ...]

The score of an answer is the head's scalar at its last token. That is the end mark if the answer is complete; an answer
that was cut off has none. A head has no bias and Bradley-Terry sees differences only, so the level of the scores means
nothing; their scale is set on export, so that the held-out answers' scores have standard deviation 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from torch import Tensor

from actors.devices import DTYPES
from trainers.export import load_tokenizer, require_model
from trainers.preferences import encode_pairs
from trainers.stage import Examples, Stage, list_row
from trainers.supervised_config import RewardConfig

if TYPE_CHECKING:
    from actors.packed import PackedModule
    from trainers.pairs import PairBatch


class RewardStage(Stage[RewardConfig, "PairBatch"]):
    """A row is a pair, and a loss term is a pair's."""

    flaws: tuple[str, ...]  # of the held-out pairs, in alphabetical order
    length_baseline: float

    def examples(self) -> Examples:
        data = self.config.data
        require_model(self.config.model, data.max_tokens, "data.max_tokens")
        self.tokenizer = load_tokenizer(self.config.model)
        train, note = encode_pairs(self.tokenizer, data, "data.train", data.train)
        heldout, heldout_note = encode_pairs(self.tokenizer, data, "data.heldout", data.heldout)
        self.flaws = tuple(sorted(set(heldout.column("flaw").to_pylist())))
        self.length_baseline = length_baseline(
            heldout.column("chosen_answer").to_pylist(), heldout.column("rejected_answer").to_pylist()
        )
        baseline = f"by length alone {self.length_baseline:.3f} of the held-out pairs are told apart"
        return Examples(train, heldout, (f"train: {note}", f"held out: {heldout_note}", baseline))

    def module(self) -> PackedModule:
        from actors.models import load_scorer
        from actors.packed import PackedScorer

        return PackedScorer(load_scorer(self.config.model, DTYPES[self.config.zero.dtype], self.config.seed))

    def batch(self, table: pa.Table, rows: list[int]) -> PairBatch:
        from trainers.pairs import PairBatch

        sequences = [list_row(table, side, row) for row in rows for side in ("chosen", "rejected")]
        flaws = [table.column("flaw")[row].as_py() for row in rows]
        return PairBatch.of_pairs(sequences, [self.flaws.index(name) if name in self.flaws else -1 for name in flaws])

    def run(self, engine: Any, batch: PairBatch) -> Tensor:
        """Scores of the pairs, (P, 2): chosen, rejected."""
        return batch.scores(engine(batch))

    def loss(self, outputs: Tensor, batch: PairBatch) -> Tensor:
        from trainers.pairs import pair_loss

        return pair_loss(outputs)

    def heldout_sums(self, outputs: Tensor, batch: PairBatch) -> dict[str, Tensor]:
        margins = (outputs[:, 0] - outputs[:, 1]).double()
        right = (margins > 0).double() + 0.5 * (margins == 0)  # a tie is a coin's toss
        sums = {"loss": self.loss(outputs, batch), "margin": margins.sum()}
        sums |= {"score": outputs.double().sum(), "score_squared": outputs.double().square().sum()}
        for index, flaw in enumerate(self.flaws):
            sums[f"pairs/{flaw}"] = (batch.flaws == index).sum()
            sums[f"right/{flaw}"] = right[batch.flaws == index].sum()
        return sums

    def heldout_metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        pairs = sum(sums[f"pairs/{flaw}"] for flaw in self.flaws)
        right = sum(sums[f"right/{flaw}"] for flaw in self.flaws)
        return {
            "heldout_loss": sums["loss"] / pairs,
            "heldout_margin": sums["margin"] / pairs,
            "heldout_accuracy": right / pairs,
            **{f"heldout_accuracy/{flaw}": sums[f"right/{flaw}"] / sums[f"pairs/{flaw}"] for flaw in self.flaws},
            "length_baseline": self.length_baseline,
            "score_std": _score_std(sums, pairs),
        }

    def finish(self, weights: dict[str, Tensor], sums: Mapping[str, float]) -> dict[str, Tensor]:
        """Scales the head to scores of standard deviation 1; one that gives every answer the same score stays."""
        std = _score_std(sums, sum(sums[f"pairs/{flaw}"] for flaw in self.flaws))
        return {
            name: tensor / std if name == "score.weight" and std > 0 else tensor for name, tensor in weights.items()
        }


def length_baseline(chosen: Sequence[int], rejected: Sequence[int]) -> float:
    """Share of pairs told apart by the answers' lengths alone, in the better of the two directions; ties count half."""
    longer = sum((c > r) + 0.5 * (c == r) for c, r in zip(chosen, rejected, strict=True)) / len(chosen)
    return max(longer, 1.0 - longer)


def _score_std(sums: Mapping[str, float], pairs: float) -> float:
    mean = sums["score"] / (2 * pairs)
    return max(0.0, sums["score_squared"] / (2 * pairs) - mean**2) ** 0.5


if __name__ == "__main__":
    from trainers import reward, supervised

    supervised.main(reward.RewardStage, "reward")  # not this module's own class: workers import it by its name
