"""Counted families: their parameters are those that Transformers makes, and the closed form agrees where there is one."""

from __future__ import annotations

from typing import Any

import pytest

from actors.config import LoraConfig, ZeroConfig
from actors.sizing.counting import count
from actors.sizing.memory import Work, lora_parameters, trained
from actors.sizing.shape import FAMILIES, shape_of
from configs.errors import ConfigError

SMALL: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 2},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "gpt_oss": {"num_local_experts": 8, "num_experts_per_tok": 2},
}
DENSE = ["gemma", "gemma2", "gemma3_text", "phi3", "glm4", "olmo2", "granite"]


def config(family: str, **more: Any) -> dict[str, Any]:
    from transformers import AutoConfig

    made: dict[str, Any] = AutoConfig.for_model(family, **{**SMALL, **EXPERTS.get(family, {}), **more}).to_dict()
    return made


@pytest.mark.parametrize("family", [*FAMILIES, *DENSE, *EXPERTS])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_parameters_are_those_of_the_model(family: str, tied: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from actors.model_folder.scorer import scorer_class

    given = config(family, tie_word_embeddings=tied)
    built = AutoConfig.for_model(**given)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(built)
        built.num_labels = 1
        scorer = scorer_class(built, "here")(built)
    shape = shape_of(given, "here")
    assert shape.parameters() == sum(p.numel() for p in model.parameters())
    assert shape.parameters(scorer=True) == sum(p.numel() for p in scorer.parameters())
    assert (shape.counts is None) == (family in FAMILIES)
    assert (shape.hidden, shape.layers, shape.vocab, shape.kv_elements) == (48, 4, 500, 2 * 4 * 24)


@pytest.mark.parametrize("family", FAMILIES)
def test_counting_agrees_with_the_closed_form(family: str) -> None:
    given = config(family)
    shape, counts = shape_of(given, "here"), count(given, "here")
    assert counts.parameters == shape.parameters()
    assert counts.matrices == shape.matrix_elements
    assert shape.layer_activations <= counts.activations <= 1.15 * shape.layer_activations
    assert {name: counts.linears[name] for name in LoraConfig().targets} == {
        name: shape.linear_widths(name) for name in LoraConfig().targets
    }


@pytest.mark.parametrize("family", ["gemma", "phi3", "glm4", "olmo2", "granite"])
def test_activations_are_bounded_by_what_autograd_keeps(family: str) -> None:
    """One layer more keeps no more than the bound, with SDPA as attention."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def kept(layers: int) -> int:
        small = config(family) | {"num_hidden_layers": layers}
        small.pop("layer_types", None)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**small), attn_implementation="sdpa")
        parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        storages: dict[int, tuple[Any, int]] = {}

        def pack(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                storages[storage.data_ptr()] = (tensor, storage.nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(torch.ones(1, 32, dtype=torch.int64), use_cache=False).logits
        assert output.requires_grad
        return sum(size for _, size in storages.values())

    one_more = (kept(3) - kept(2)) / 4 / 32
    assert 0.5 * shape_of(config(family), "here").layer_activations < one_more
    assert one_more <= 1.05 * shape_of(config(family), "here").layer_activations


def test_a_token_meets_the_experts_that_it_is_routed_to() -> None:
    shape = shape_of(config("qwen3_moe"), "here")
    attention, router, expert = 2 * 48 * (48 + 24), 48 * 8, 3 * 48 * 24
    assert shape.matrix_elements == 4 * (attention + router + 2 * expert)
    assert shape_of(config("qwen3_moe", num_experts_per_tok=8), "here").matrix_elements == 4 * (
        attention + router + 8 * expert
    )
    more = shape_of(config("qwen3_moe", num_experts_per_tok=4), "here")
    assert more.layer_activations > shape.layer_activations
    assert more.parameters() == shape.parameters()


def test_lora_stands_beside_the_linear_layers_of_its_names() -> None:
    shape = shape_of(config("phi3"), "here")
    assert lora_parameters(shape, LoraConfig(rank=4, targets=("qkv_proj", "q_proj"))) == 4 * 4 * (48 + 48 + 2 * 24)


def test_a_large_model_is_counted_without_its_memory() -> None:
    given = {"model_type": "gemma2", "hidden_size": 4608, "num_hidden_layers": 46, "intermediate_size": 36864}
    shape = shape_of(given | {"num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128}, "27B")
    assert shape.parameters() == 27_227_128_320
    footprint = trained(shape, ZeroConfig(dtype="bfloat16"), 8, Work(100), gpu=True)
    assert next(part.bytes for part in footprint.work if part.name == "weights") == 2 * 27_227_128_320 // 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model_type": "no_family"}, "here: its memory cannot be estimated, .* model_type 'no_family'"),
        ({"model_type": "t5"}, "cannot build a causal language model of model_type 't5'"),
        ({}, "model_type None"),
    ],
)
def test_what_cannot_be_built_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shape_of(given, "here")
