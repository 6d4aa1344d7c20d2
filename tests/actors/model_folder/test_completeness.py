"""A checkpoint whose weights are not those of its config.json would be trained, or asked, with random numbers in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from actors.config import ArchitectureConfig
from actors.model_folder.completeness import require_complete
from actors.model_folder.folders import ModelFolder
from actors.modeling.models import load_causal_lm, load_scorer, new_causal_lm, save_pretrained
from configs.errors import ConfigError


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    shape = ArchitectureConfig(
        hidden_size=16, intermediate_size=24, layers=2, heads=4, kv_heads=2, context=32, tie_embeddings=request.param
    )
    model = new_causal_lm(shape, vocab_size=40, bos=1, eos=2, pad=3, seed=0)
    save_pretrained(model, {name: one.detach() for name, one in model.named_parameters()}, tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **settings}), "utf-8")


def without(folder: Path, *names: str) -> None:
    path = folder / "model.safetensors"
    save_file({name: one for name, one in load_file(path).items() if name not in names}, path, {"format": "pt"})


def test_a_whole_checkpoint_passes(folder: Path) -> None:
    require_complete(folder, "model")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_hidden_layers": 3}, r"lack 9 tensors .* such as model\.layers\.2\."),
        ({"num_hidden_layers": 1}, r"the weights have model\.layers\.1\..*a model with fewer layers"),
        ({"vocab_size": 50}, r"asks for .* of shape \(50, 16\) and the weights have \(40, 16\)"),
        ({"intermediate_size": 32}, r"asks for model\.layers\.0\.mlp"),
        ({"pad_token_id": 99}, "Transformers cannot make this model: Padding_idx must be within num_embeddings"),
    ],
)
def test_a_config_of_another_model_is_refused_in_one_line(folder: Path, settings: dict[str, Any], said: str) -> None:
    change(folder, **settings)
    with pytest.raises(ConfigError, match=said) as refused:
        require_complete(folder, "policy.model")
    assert str(refused.value).startswith("policy.model: ")
    assert "\n" not in str(refused.value)


def test_a_missing_tensor_is_refused_before_and_while_it_is_loaded(folder: Path) -> None:
    without(folder, "model.norm.weight")
    with pytest.raises(ConfigError, match=r"lack 1 tensors .* such as model\.norm\.weight"):
        require_complete(folder, "model")
    AutoModelForCausalLM.from_pretrained(folder)  # which goes on
    for load in (load_causal_lm, load_scorer):
        with pytest.raises(ConfigError, match=r"lack 1 tensors .* such as model\.norm\.weight"):
            load(str(folder), torch.float32)


def test_a_reward_model_without_its_head_is_refused(folder: Path, tmp_path: Path) -> None:
    scorer = load_scorer(str(folder), torch.float32)
    save_pretrained(scorer, dict(scorer.named_parameters()), tmp_path / "scorer")
    require_complete(tmp_path / "scorer", "reward.model")
    without(tmp_path / "scorer", "score.weight")
    with pytest.raises(ConfigError, match=r"reward.model: the weights in .*scorer have no score.weight"):
        ModelFolder(tmp_path / "scorer", "reward.model")
    with pytest.raises(ConfigError, match=r"lack 1 tensors .* such as score.weight"):
        require_complete(tmp_path / "scorer", "reward.model")
