"""LoRA by peft: low-rank matrices beside a model's linear layers are trained instead of them (Hu et al. 2021).

A layer then computes W x + (alpha / rank) B A x, with A random and B zero at first, so that it starts as the model was.
Exports have W + (alpha / rank) B A: a model like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from actors.config import LoraConfig
from configs.errors import ConfigError

ADAPTER = "default"
HEAD = "score."  # a scorer's, which is trained whole: it begins at zero


def add_lora(model: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
    """Puts LoRA's matrices beside the layers that `lora.targets` names; everything else but a scorer's head is frozen.

    Raises ConfigError for a name that none of the model's linear layers ends with.
    """
    from peft import LoraConfig as Settings
    from peft import inject_adapter_in_model

    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    for target in lora.targets:
        if target not in linear:
            raise ConfigError(
                f"lora.targets: the model has no linear layer {target}; it has {', '.join(sorted(linear))}"
            )
    torch.manual_seed(seed)
    settings = Settings(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), bias="none"
    )
    inject_adapter_in_model(settings, model, ADAPTER)
    for name, parameter in model.named_parameters():
        if name.startswith(HEAD):
            parameter.requires_grad_(True)


@torch.no_grad()
def merged(model: PreTrainedModel, block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name, whole ones of `model`, with LoRA's matrices added to those they stand beside, as peft adds them.

    Without LoRA they are what they were.
    """
    weights = {}
    for name, tensor in block.items():
        layer, wrapped, rest = name.partition(".base_layer.")
        if wrapped and rest == "weight":
            tensor = tensor + model.get_submodule(layer).get_delta_weight(ADAPTER).to(tensor.dtype)
        if ".lora_" not in name:
            weights[f"{layer}.{rest}" if wrapped else name] = tensor
    return weights
