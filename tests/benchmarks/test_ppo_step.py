"""The measured step: how its answers end, what it needs at least, when nobody worked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.ppo_step import floor, workload
from benchmarks.ppo_step.ours import idle
from trainers.runs.export import export_model


@pytest.mark.parametrize(("mean_tokens", "expected"), [(None, 0.0), (96.0, 1 / 96), (8.0, 1 / 8)])
def test_every_token_ends_an_answer_with_the_same_probability(
    mean_tokens: float | None, expected: float, tokenizer: Any, tmp_path: Path
) -> None:
    clinic = tmp_path / "clinic"
    export_model(clinic / "tokenizer", tokenizer, lambda folder: None)
    one = workload.Workload("one", prompts=1, samples=2, max_new_tokens=8, mean_tokens=mean_tokens, steps=1)
    folder = workload.make_model(tmp_path / "model", clinic, one)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert 33e6 < sum(parameter.numel() for parameter in model.parameters()) < 36e6
    with torch.no_grad():
        logits = model(torch.randint(5, workload.VOCABULARY, (1, 200))).logits[0]
    ending = logits.softmax(-1)[:, tokenizer.eos_token_id]
    assert ending.mean() == pytest.approx(expected, rel=0.1)
    assert ending.std() <= 0.2 * expected


def test_operations_of_a_step_worked_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "LAYERS", 100)  # weights that every token passes
    monkeypatch.setattr(floor, "HEAD", 10)
    monkeypatch.setattr(floor, "ATTENTION", 1)
    table = pa.table({"group": [7, 7], "prompt": [[1, 2], [1, 2]], "response": [[3, 4, 5], [6]]})
    read = 200 * 2 + 3  # the prompt once; its two tokens see one and two
    written = 200 * 2 + (3 + 4)  # the first answer's tokens are read to sample the next; the last is not
    learned = 3 * (200 * (5 + 3) + (15 + 6))
    head = (1 + 3) * 20 * 4
    assert floor.step_flops(table) == read + written + learned + head


def test_time_in_which_no_role_works() -> None:
    assert idle([(0.0, 2.0), (1.0, 3.0), (4.0, 9.0)], (1.0, 5.0)) == pytest.approx(0.25)
    assert idle([], (1.0, 5.0)) == 1.0
    assert idle([(0.0, 9.0)], (1.0, 5.0)) == 0.0
