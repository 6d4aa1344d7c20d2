"""Shapes: parameters counted by formula are those that Transformers makes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.config import ArchitectureConfig
from actors.model_folder.config_json import read_shape
from actors.sizing.shape import new_shape, parse_shape, shape_of, vocabulary
from configs.errors import ConfigError

SMALL: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize(
    "more",
    [{}, {"tie_word_embeddings": True}, {"attention_bias": True}, {"head_dim": 20}, {"mlp_bias": True}],
    ids=lambda more: next(iter(more), "plain"),
)
def test_parameters_are_those_of_the_model(family: str, more: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    if (family != "llama" and "mlp_bias" in more) or (family == "mistral" and "attention_bias" in more):
        pytest.skip("the family does not have it")
    if family == "qwen2" and {"attention_bias", "head_dim"} & set(more):
        pytest.skip("the family does not read it")
    config = AutoConfig.for_model(family, **SMALL, num_labels=1, **more)
    shape = shape_of(config.to_dict(), "here")
    with torch.device("meta"):
        for kind, scorer in ((AutoModelForCausalLM, False), (AutoModelForSequenceClassification, True)):
            model = kind.from_config(config)
            assert shape.parameters(scorer) == sum(p.numel() for p in model.parameters()), kind


def test_a_new_models_shape_is_that_of_its_folder(make_model: Any) -> None:
    folder = make_model("shape")
    given = json.loads((folder / "config.json").read_text())
    architecture = ArchitectureConfig(hidden_size=64, intermediate_size=96, layers=2, heads=2, kv_heads=2, context=256)
    assert new_shape(architecture, given["vocab_size"]) == read_shape(folder)
    assert vocabulary(folder) == given["vocab_size"]


def test_a_shape_may_be_written_down() -> None:
    shape = parse_shape("hidden=5120,layers=40,intermediate=13824,heads=40,vocab=39424")
    assert shape.parameters() == 13_091_886_080
    assert shape.kv_elements == 2 * 40 * 5120
    assert parse_shape("hidden=8,layers=1,intermediate=8,heads=4,kv_heads=2,vocab=9").kv == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden=8,width=3", "'width=3' is not NAME=NUMBER; the names are context, head_dim"),
        ("hidden=x", "'hidden=x' is not NAME=NUMBER"),
        ("hidden=8,layers=2", "give heads, intermediate, vocab"),
        ("hidden=0,layers=1,intermediate=8,heads=4,vocab=9", "as numbers above 0"),
    ],
)
def test_a_shape_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_shape(text)
