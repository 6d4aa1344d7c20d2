from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.errors import ConfigError
from data.tables import DataError
from trainers.config.supervised import PretrainConfig
from trainers.supervised.tasks.pretrain import PretrainStage


def config(tables: Any, clinic: Path, **settings: Any) -> PretrainConfig:
    start = {"architecture": {"hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2, "kv_heads": 2}}
    start["tokenizer"] = str(clinic / "tokenizer")
    if "model" in settings:
        start = {}
    values = {
        "name": "t",
        "data": {**tables("pretrain"), "block_tokens": 64},
        "micro_batch_tokens": 64,
        **start,
        **settings,
    }
    return PretrainConfig.model_validate_json(json.dumps(values))


def test_documents_end_with_the_end_mark_and_fill_the_blocks(data: Any, clinic: Path) -> None:
    stage = PretrainStage(config(data, clinic))
    train = stage.examples().train
    end = stage.tokenizer.eos_token_id
    for row in train.to_pylist():
        assert len(row["tokens"]) == row["size"] == 64
        assert row["weight"] == 64 - len(row["lengths"])
        ends = torch.tensor(row["lengths"]).cumsum(0) - 1
        assert all(row["tokens"][position] == end for position in ends[:-1])
        assert sum(token == end for token in row["tokens"][:-1]) == len(row["lengths"]) - 1


def test_a_batch_keeps_the_documents_of_its_blocks_apart(data: Any, clinic: Path) -> None:
    stage = PretrainStage(config(data, clinic))
    train = stage.examples().train
    batch = stage.batch(train, [2, 0])
    assert list(batch.lengths) == train["lengths"][2].as_py() + train["lengths"][0].as_py()
    assert batch.input_ids.tolist() == train["tokens"][2].as_py() + train["tokens"][0].as_py()
    assert len(batch.predict) == train["weight"][2].as_py() + train["weight"][0].as_py()


def test_heldout_documents_are_whole(data: Any, clinic: Path) -> None:
    section = {**data("pretrain"), "block_tokens": 128}
    heldout = PretrainStage(config(data, clinic, data=section, micro_batch_tokens=128)).examples().heldout
    assert heldout.num_rows == 8
    assert {len(lengths) for lengths in heldout["lengths"].to_pylist()} == {1}


def test_a_new_model_has_the_tokenizers_vocabulary_and_follows_the_seed(data: Any, clinic: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        stage = PretrainStage(config(data, clinic, seed=seed))
        stage.examples()
        return stage.module().get_parameter("model.model.embed_tokens.weight")

    assert weights(0).shape == (290, 16)
    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_a_base_model_is_continued_from_its_own_folder(data: Any, clinic: Path) -> None:
    stage = PretrainStage(config(data, clinic, model=str(clinic / "model"), zero={"stage": 0}))
    stage.examples()
    module = stage.module()
    assert len(stage.tokenizer) == 290
    assert module.get_submodule("model.model.layers").__len__() == 2


def test_blocks_longer_than_the_base_models_context_are_refused(data: Any, clinic: Path) -> None:
    blocks = {**data("pretrain"), "block_tokens": 1024}
    stage = PretrainStage(config(data, clinic, model=str(clinic / "model"), data=blocks, micro_batch_tokens=1024))
    with pytest.raises(ConfigError, match=r"data.block_tokens 1024 exceeds the context of 512 tokens"):
        stage.examples()


def test_missing_data_says_how_to_make_it(data: Any, clinic: Path, tmp_path: Path) -> None:
    missing = {**data("pretrain"), "train": [str(tmp_path / "no.parquet")], "block_tokens": 64}
    with pytest.raises(DataError, match=r"no.parquet: no such file.*python -m data.clinic"):
        PretrainStage(config(data, clinic, data=missing)).examples()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": None}, "neither of architecture and model given"),
        ({"tokenizer": None}, "needs a tokenizer"),
        ({"batch_size": 3, "placement": {"ranks": 2}}, "batch_size 3 is not divisible by placement.ranks 2"),
        ({"micro_batch_tokens": 32}, "micro_batch_tokens 32 is less than data.block_tokens 64"),
    ],
)
def test_impossible_settings_are_refused(data: Any, clinic: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(data, clinic, **settings)
