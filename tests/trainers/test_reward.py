from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from data.tables import DataError
from trainers.preferences import encode_pair
from trainers.reward import RewardStage, length_baseline
from trainers.supervised_config import RewardConfig


@pytest.fixture
def stage(data: Any, clinic: Path) -> RewardStage:
    values = {"name": "t", "model": str(clinic / "model"), "data": {**data("preference"), "max_tokens": 512}}
    return RewardStage(RewardConfig.model_validate_json(json.dumps(values)))


def test_an_answer_ends_with_the_end_mark_unless_it_was_cut_off(tokenizer: Any) -> None:
    row = {"prompt": [{"role": "user", "content": "头痛"}], "chosen": "多休息。", "rejected": "多休"}
    for flaw, end in (("rude", "</s>"), ("cut_off", "")):
        prompt, chosen, rejected = encode_pair(tokenizer, {**row, "flaw": flaw})
        assert tokenizer.decode(prompt) == "[human]:头痛\n[bot]:"
        assert tokenizer.decode(chosen) == "多休息。</s>"
        assert tokenizer.decode(rejected) == "多休" + end


def test_an_empty_answer_is_refused(tokenizer: Any) -> None:
    row = {"prompt": [{"role": "user", "content": "头痛"}], "chosen": " ", "rejected": "多休", "flaw": "rude"}
    with pytest.raises(DataError, match="empty"):
        encode_pair(tokenizer, row)


def test_scores_are_read_at_each_sequences_last_token(stage: RewardStage) -> None:
    train = stage.examples().train
    batch = stage.batch(train, [1, 4])
    module = stage.module()
    torch.nn.init.normal_(module.get_parameter("model.score.weight"), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = stage.run(module, batch)
        for pair, row in enumerate((1, 4)):
            for column, side in enumerate(("chosen", "rejected")):
                ids = torch.tensor(train[side][row].as_py())[None]
                model = module.get_submodule("model")
                alone = model(input_ids=ids, sequence_lengths=(ids.shape[1],), use_cache=False).logits
                assert scores[pair, column].item() == pytest.approx(alone.item(), abs=1e-6)


def test_a_fresh_head_scores_zero_and_calls_every_pair_a_tie(stage: RewardStage) -> None:
    heldout = stage.examples().heldout
    batch = stage.batch(heldout, list(range(8)))
    outputs = stage.run(stage.module(), batch)
    assert outputs.abs().max() == 0
    assert stage.loss(outputs, batch).item() == pytest.approx(8 * math.log(2))
    metrics = stage.heldout_metrics(
        {name: figure.item() for name, figure in stage.heldout_sums(outputs, batch).items()}
    )
    assert metrics["heldout_accuracy"] == 0.5
    assert metrics["heldout_loss"] == pytest.approx(math.log(2))


def test_accuracy_is_counted_per_flaw(stage: RewardStage) -> None:
    heldout = stage.examples().heldout  # rows alternate: rude, cut_off
    batch = stage.batch(heldout, [0, 1, 2, 3])
    outputs = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [1.0, 0.0]])
    sums = {name: figure.item() for name, figure in stage.heldout_sums(outputs, batch).items()}
    metrics = stage.heldout_metrics(sums)
    assert metrics["heldout_accuracy/rude"] == 1.0
    assert metrics["heldout_accuracy/cut_off"] == 0.5
    assert metrics["heldout_accuracy"] == 0.75
    assert metrics["heldout_margin"] == pytest.approx((1 - 3 + 1 + 1) / 4)
    assert metrics["score_std"] == pytest.approx(outputs.std(correction=0).item())
    expected = sum(math.log1p(math.exp(-margin)) for margin in (1, -3, 1, 1))
    assert sums["loss"] == pytest.approx(expected, rel=1e-6)


def test_the_exported_head_is_scaled_to_unit_deviation(stage: RewardStage) -> None:
    batch = stage.batch(stage.examples().heldout, [0, 1])
    outputs = torch.tensor([[2.0, -2.0], [2.0, -2.0]])
    sums = {name: figure.item() for name, figure in stage.heldout_sums(outputs, batch).items()}
    weights = {"score.weight": torch.tensor([[4.0]]), "norm": torch.tensor([4.0])}
    finished = stage.finish(weights, sums)
    assert finished["score.weight"].item() == pytest.approx(2.0)
    assert finished["norm"].item() == 4.0


def test_length_alone_is_judged_in_its_better_direction() -> None:
    assert length_baseline([5, 1, 1, 1], [1, 5, 5, 5]) == 0.75
    assert length_baseline([1, 2], [2, 1]) == 0.5
    assert length_baseline([3, 3], [3, 1]) == 0.75


def test_pairs_keep_their_ends_when_cut(stage: RewardStage) -> None:
    whole = stage.examples().train
    section = stage.config.data.model_copy(update={"max_tokens": 16, "too_long": "cut"})
    cut = RewardStage(stage.config.model_copy(update={"data": section})).examples().train
    assert cut["chosen"][0].as_py() == whole["chosen"][0].as_py()[-16:]
