from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from actors.config import FrozenRoleConfig, ZeroConfig
from actors.model_folder.folders import ModelFolder
from actors.modeling.packing import Packing
from actors.roles.reward import Reward
from data.tables import PREFERENCE_WITH_MARGIN, DataError, write_table
from evals.models.reward_model import RewardModel
from trainers.config.supervised import RewardConfig
from trainers.runs.export import export_model
from trainers.supervised.preferences import encode_pairs
from trainers.supervised.tasks.reward import RewardStage


def pair(n: int) -> dict[str, Any]:
    prompt = [{"role": "user", "content": f"病人{n}头痛怎么办"}]
    return {"prompt": prompt, "chosen": "建议多休息。", "rejected": "别烦我。", "flaw": "rude"}


@pytest.fixture
def stage(data: Any, clinic: Path) -> RewardStage:
    values = {
        "name": "t",
        "model": str(clinic / "model"),
        "data": {**data("preference"), "max_tokens": 512},
        "optimizer": {"lr": 3e-3},
    }
    return RewardStage(RewardConfig.model_validate_json(json.dumps(values)))


@pytest.fixture
def unsharded(stage: RewardStage) -> RewardStage:
    """One whose module has its parameters without ZeroModel."""
    return RewardStage(stage.config.model_copy(update={"zero": ZeroConfig(stage=0)}))


def test_scores_are_read_at_each_sequences_last_token(unsharded: RewardStage) -> None:
    train = unsharded.examples().train
    batch = unsharded.batch(train, [1, 4])
    module = unsharded.module()
    torch.nn.init.normal_(module.get_parameter("model.score.weight"), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = unsharded.run(module, batch)
        for pair, row in enumerate((1, 4)):
            for column, side in enumerate(("chosen", "rejected")):
                ids = torch.tensor(train[side][row].as_py())[None]
                model = module.get_submodule("model")
                alone = model(input_ids=ids, packing=Packing((ids.shape[1],), ids.device), use_cache=False).logits
                assert scores[pair, column].item() == pytest.approx(alone.item(), rel=1e-5)  # rounding of fp32


def scored(stage: RewardStage, outputs: torch.Tensor) -> pa.Table:
    """The first held-out rows with these scores."""
    rows = stage.examples().heldout.slice(0, len(outputs))
    for name, column in zip(stage.heldout_columns, outputs.T, strict=True):
        rows = rows.append_column(name, pa.array(column.numpy()))
    return rows


def test_a_fresh_head_scores_zero_and_calls_every_pair_a_tie(unsharded: RewardStage) -> None:
    heldout = unsharded.examples().heldout
    batch = unsharded.batch(heldout, list(range(8)))
    with torch.no_grad():
        outputs = unsharded.run(unsharded.module(), batch)
    assert outputs.abs().max() == 0
    assert unsharded.loss(outputs, batch).item() == pytest.approx(8 * math.log(2))
    metrics = unsharded.heldout_metrics({}, scored(unsharded, outputs))
    assert metrics["heldout_accuracy"] == 0.5
    assert metrics["heldout_loss"] == pytest.approx(math.log(2))
    assert math.isnan(metrics["heldout_length_pearson"])


def test_accuracy_is_counted_per_flaw(stage: RewardStage) -> None:
    outputs = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [1.0, 0.0]])  # rows alternate: rude, cut_off
    metrics = stage.heldout_metrics({}, scored(stage, outputs))
    assert metrics["heldout_accuracy/rude"] == 1.0
    assert metrics["heldout_accuracy/cut_off"] == 0.5
    assert metrics["heldout_accuracy"] == 0.75
    assert metrics["heldout_margin"] == pytest.approx((1 - 3 + 1 + 1) / 4)
    assert metrics["score_std"] == pytest.approx(outputs.std(correction=0).item())
    assert metrics["score_mean"] == 1.0


def test_a_margin_asks_for_more_and_smoothing_for_less(stage: RewardStage, tmp_path: Path) -> None:
    rows = [{**pair(n), "margin": 0.5 * n} for n in range(3)]
    write_table(pa.Table.from_pylist(rows, PREFERENCE_WITH_MARGIN), tmp_path / "margins.parquet")
    section = stage.config.data.model_copy(update={"train": (str(tmp_path / "margins.parquet"),)})
    smoothed = RewardStage(stage.config.model_copy(update={"data": section, "label_smoothing": 0.1}))
    examples = smoothed.examples()
    assert examples.notes[0].endswith(", 2 with a margin")
    outputs = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    differences = (2 - 1 - 0.0, 0 - 3 - 0.5, 1 - 0 - 1.0)
    expected = sum(0.9 * math.log1p(math.exp(-d)) + 0.1 * math.log1p(math.exp(d)) for d in differences)
    assert smoothed.loss(outputs, smoothed.batch(examples.train, [0, 1, 2])).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_named_by_its_row(stage: RewardStage, tmp_path: Path, margin: float) -> None:
    rows = [pair(0) | {"margin": 0.0}, pair(1) | {"margin": margin}]
    write_table(pa.Table.from_pylist(rows, PREFERENCE_WITH_MARGIN), tmp_path / "margins.parquet")
    with pytest.raises(DataError, match=r"t: row 1: margin .*: must be 0 or more"):
        encode_pairs(stage.examples() and stage.tokenizer, stage.config.data, "t", (str(tmp_path / "margins.parquet"),))


def test_the_exported_scores_have_mean_0_and_deviation_1_for_every_reader(
    train: Any, stage: RewardStage, tmp_path: Path
) -> None:
    sent = train(stage, tmp_path)
    folder = tmp_path / "model"
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["metrics"]["heldout_accuracy"] == sent[-1][2]["heldout_accuracy"]
    assert evaluation["report"]["pairs"] == 8
    heldout = stage.examples().heldout
    sequences = [heldout[side][row].as_py() for side in ("chosen", "rejected") for row in range(8)]
    ours = RewardModel(ModelFolder(str(folder))).score(sequences)
    assert np.mean(ours) == pytest.approx(0.0, abs=1e-5)
    assert np.std(ours) == pytest.approx(1.0, rel=1e-5)
    mean = json.loads((folder / "config.json").read_text())["logit_mean"]
    assert abs(mean) > 1e-3
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        raw = [model(torch.tensor([ids])).logits.item() for ids in sequences]
    assert np.array(raw) - mean == pytest.approx(np.array(ours), abs=1e-5)
    role = Reward(threads=1)
    role.setup(FrozenRoleConfig(model=str(folder)))
    rows = pa.table({"prompt": [ids[:3] for ids in sequences], "response": [ids[3:] for ids in sequences]})
    assert role.add_columns(rows, [list(range(16))])["reward_model"].to_pylist() == pytest.approx(ours, abs=1e-5)


def test_training_on_from_a_reward_model_forgets_its_level(
    unsharded: RewardStage, tmp_path: Path, clinic: Path
) -> None:
    unsharded.examples()
    scorer = unsharded.module().model
    scorer.config.logit_mean = 5.0
    export_model(tmp_path / "scorer", unsharded.tokenizer, scorer.save_pretrained)
    again = RewardStage(unsharded.config.model_copy(update={"model": str(tmp_path / "scorer")}))
    batch = again.batch(again.examples().heldout, [0])
    assert again.run(again.module(), batch).abs().max() == 0


def test_a_cut_pair_keeps_its_ends_and_shares_what_is_left_of_its_prompt(stage: RewardStage) -> None:
    whole = stage.examples().train
    section = stage.config.data.model_copy(update={"max_tokens": 24, "too_long": "cut"})
    cut = RewardStage(stage.config.model_copy(update={"data": section})).examples().train
    prompts = []
    for side in ("chosen", "rejected"):
        before, after = (table[side][0].as_py() for table in (whole, cut))
        assert after == before[-len(after) :]
        prompts.append(after[: -whole[f"{side}_response_tokens"][0].as_py()])
    assert prompts[0] == prompts[1]
    assert 0 < len(prompts[0]) < 24
    assert max(len(cut[side][0].as_py()) for side in ("chosen", "rejected")) == 24


def test_answers_alone_too_long_lose_their_fronts(stage: RewardStage) -> None:
    whole = stage.examples().train
    section = stage.config.data.model_copy(update={"max_tokens": 3, "too_long": "cut"})
    cut = RewardStage(stage.config.model_copy(update={"data": section})).examples().train
    for side in ("chosen", "rejected"):
        assert cut[side][0].as_py() == whole[side][0].as_py()[-3:]
