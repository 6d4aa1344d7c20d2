"""What is published has the names and shapes of the family's checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from actors.modeling.checkpoint_format import in_checkpoint_format
from actors.modeling.miniature import miniature


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "phi3", "qwen2_moe", "qwen3_moe", "mixtral"])
@pytest.mark.parametrize("loaded", [False, True])
def test_layer_by_layer_it_is_what_save_pretrained_writes(family: str, loaded: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(miniature(AutoConfig.for_model(family)), dtype=torch.float32)
    model.save_pretrained(tmp_path)
    if loaded:
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    blocks: dict[str, dict[str, torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        layer = re.search(r"\.layers\.\d+\.", name)
        blocks.setdefault(layer[0] if layer else name, {})[name] = parameter.detach()
    given = {name: tensor for block in blocks.values() for name, tensor in in_checkpoint_format(model, block).items()}
    assert given.keys() == written.keys()
    assert all(torch.equal(given[name], tensor) for name, tensor in written.items())
