from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evals.tasks.pairwise import evaluate

PROMPT = [{"role": "user", "content": "头痛怎么办？"}]


class Judge:
    """A reward model that scores a sequence by a rule, and remembers what it saw."""

    def __init__(self, tokenizer: Any, rule: Any) -> None:
        self.folder, self.rule, self.seen = SimpleNamespace(tokenizer=tokenizer), rule, list[list[int]]()

    def score(self, sequences: list[list[int]]) -> list[float]:
        self.seen += sequences
        return [float(self.rule(ids)) for ids in sequences]


def row(chosen: str, rejected: str, flaw: str) -> dict[str, Any]:
    return {"prompt": PROMPT, "chosen": chosen, "rejected": rejected, "flaw": flaw}


def test_accuracy_by_flaw_and_length_baselines(tokenizer: Any) -> None:
    rows = [
        row("建议多休息。", "别烦我。", "rude"),  # chosen longer
        row("多休息。", "建议多休息，按时服用头痛", "cut_off"),  # chosen shorter
        row("多休息。", "休息多。", "rude"),  # as long
    ]
    judge = Judge(tokenizer, len)
    metrics = evaluate(judge, rows)  # type: ignore[arg-type]
    assert metrics["by_flaw"]["cut_off"] == {"accuracy": 0.0, "n": 1}
    assert metrics["by_flaw"]["rude"]["n"] == 2
    assert metrics["length_baseline_characters"] == 0.5
    by_tokens = metrics["length_baseline_tokens"]
    assert by_tokens == pytest.approx(max(metrics["accuracy"], 1 - metrics["accuracy"]))  # the judge's rule is the same
    assert metrics["length_baseline"] == max(metrics["length_baseline_tokens"], metrics["length_baseline_characters"])


def test_a_constant_reward_scores_one_half(tokenizer: Any) -> None:
    metrics = evaluate(Judge(tokenizer, lambda ids: 1.0), [row("多休息。", "别烦我。", "rude")] * 4)  # type: ignore[arg-type]
    assert (metrics["accuracy"], metrics["ties"]) == (0.5, 4)


def test_only_a_rejected_answer_that_was_cut_off_lacks_the_end_mark(tokenizer: Any) -> None:
    judge = Judge(tokenizer, lambda ids: ids[-1] == tokenizer.eos_token_id)
    metrics = evaluate(judge, [row("多休息。", "多休", "cut_off"), row("多休息。", "别烦我。", "rude")])  # type: ignore[arg-type]
    assert metrics["by_flaw"] == {"cut_off": {"accuracy": 1.0, "n": 1}, "rude": {"accuracy": 0.5, "n": 1}}
    assert tokenizer.decode(judge.seen[0]) == "[human]:头痛怎么办？\n[bot]:多休息。</s>"
