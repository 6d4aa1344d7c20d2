"""Names and shapes of parameters, against Transformers' own models; and which checkpoints go into shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from actors.model_folder.layout import CONVERTED, Differences, differences, parameter_shapes, reads_whole, whole_because
from actors.model_folder.scorer import scorer_class
from actors.model_folder.weights import Stored, stored_tensors
from actors.sizing.counting import converts
from actors.sizing.shape import FAMILIES, shape_of
from configs.errors import ConfigError

SIZES = {
    "vocab_size": 41, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip


def given(family: str, **more: Any) -> dict[str, Any]:
    config: dict[str, Any] = AutoConfig.for_model(family, **SIZES, **more).to_dict()
    return json.loads(json.dumps(config))


@pytest.mark.parametrize(
    ("family", "more"),
    [
        *((family, {"tie_word_embeddings": tied}) for family in FAMILIES for tied in (True, False)),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("qwen3", {"attention_bias": True, "head_dim": 8}),
        ("gemma2", {"head_dim": 8}),
        ("phi3", {}),
    ],
)
def test_parameters_are_those_of_transformers_own_model(family: str, more: dict[str, Any]) -> None:
    config = given(family, **more)
    own = AutoConfig.for_model(family, **{name: value for name, value in config.items() if name != "model_type"})
    with torch.device("meta"):
        models = [AutoModelForCausalLM.from_config(own), scorer_class(own, "it")._from_config(own)]
    for model, scorer in zip(models, (False, True), strict=True):
        expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        if scorer:
            expected["score.weight"] = (1, 16)  # of two labels, Transformers' default
        found = parameter_shapes(config, "it", scorer)
        assert found == expected
        elements = sum(torch.Size(size).numel() for size in found.values())
        assert elements == shape_of(config, "it").parameters(scorer)
        assert not converts(model)
    assert shape_of(config, "it").largest_parameter == max(torch.Size(s).numel() for s in found.values())


PARAMETERS = {"model.a.weight": (2, 3), "model.norm.weight": (3,), "lm_head.weight": (5, 3)}
SCORER = {"model.a.weight": (2, 3), "model.norm.weight": (3,), "score.weight": (1, 3)}


def test_what_differs_between_a_model_and_its_files() -> None:
    files = {"a": (3, 2), "c": (4,), "model.layers.0.rotary_emb.inv_freq": (8,), "h.0.attn.masked_bias": ()}
    assert differences({"a": (2, 3), "b": (1,)}, files) == Differences(["b"], ["c"], ["a"])
    assert differences({"h.0.attn.bias": (4,)}, {"h.0.attn.bias": (4,)}) == Differences([], [], [])


def stored(shapes: dict[str, tuple[int, ...]], **dtypes: str) -> dict[str, Stored]:
    return {name: Stored(Path("m"), dtypes.get(name.split(".")[1], "BF16"), size) for name, size in shapes.items()}


@pytest.mark.parametrize(
    ("parameters", "tensors", "scorer", "reason"),
    [
        (PARAMETERS, stored(PARAMETERS), False, ""),
        (PARAMETERS, stored(PARAMETERS | {"model.layers.0.rotary_emb.inv_freq": (8,)}), False, ""),
        (SCORER, stored(SCORER), True, ""),
        (SCORER, stored(PARAMETERS), True, ""),  # a new head
        (PARAMETERS, stored(SCORER), False, "its files have no lm_head.weight"),
        (PARAMETERS, None, False, "its weights are not in safetensors files"),
        (PARAMETERS, stored(PARAMETERS | {"x.y": (1,)}), False,
         "its files have x.y, which is no parameter of the model"),
        (SCORER, stored(SCORER | {"lm_head.weight": (5, 3)}), True, "its files have lm_head.weight, which is no parameter of the model"),
        (PARAMETERS, stored(PARAMETERS | {"model.norm.weight": (4,)}), False,
         "its files have model.norm.weight with the shape (4,), and the model with (3,)"),
        (PARAMETERS, stored(PARAMETERS, a="F8_E4M3"), False, "its files have model.a.weight as F8_E4M3, which is none of F32, F16, BF16"),
    ],
)  # fmt: skip
def test_files_that_hold_the_parameters_one_to_one_go_into_shards(
    parameters: Any, tensors: Any, scorer: bool, reason: str
) -> None:
    assert whole_because(parameters, tensors, scorer) == reason


def save(family: str, folder: Path, **more: Any) -> str:
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES, **more)).save_pretrained(folder)
    return str(folder)


def test_a_folder_is_told_by_its_config_and_headers(tmp_path: Path) -> None:
    whole = {name: reads_whole(save(name, tmp_path / name), False) for name in ("llama", "gemma2")}
    assert whole == {"llama": "", "gemma2": ""}
    assert reads_whole(str(tmp_path / "llama"), True) == ""
    experts = save("qwen3_moe", tmp_path / "moe", moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2)
    assert reads_whole(experts, False) == CONVERTED
    pickled = Path(save("llama", tmp_path / "bin"))
    weights = {name: torch.zeros(1) for name in stored_tensors(pickled, "it") or {}}
    (pickled / "model.safetensors").unlink()
    torch.save(weights, pickled / "pytorch_model.bin")
    assert reads_whole(str(pickled), False) == "its weights are not in safetensors files"
    (pickled / "pytorch_model.bin").unlink()
    assert reads_whole(str(pickled), False) is None  # they may still come
    assert reads_whole("runs/nowhere", False) is None
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert reads_whole(str(adapter), False) == "it is an adapter, which is first merged into its base"


def test_headers_are_read_of_every_file_and_the_last_counts(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2), "b": torch.zeros(3, 1)}, tmp_path / "model-1.safetensors")
    save_file({"a": torch.zeros(4, dtype=torch.bfloat16)}, tmp_path / "model-2.safetensors")
    found = stored_tensors(tmp_path, "it")
    assert found == {
        "a": Stored(tmp_path / "model-2.safetensors", "BF16", (4,)),
        "b": Stored(tmp_path / "model-1.safetensors", "F32", (3, 1)),
    }
    (tmp_path / "model-2.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match="it: .*model-2.safetensors: not readable as weights"):
        stored_tensors(tmp_path, "it")
