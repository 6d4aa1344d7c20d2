"""LoRA with peft: low-rank matrices of a model's linear layers are trained instead of the layers (Hu et al. 2021).

A layer computes W x + (alpha / rank) B A x, with A random and B zero at first, so that training starts from the
original model. Exports contain W + (alpha / rank) B A: an ordinary model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from actors.config import LoraConfig
from actors.model_folder.checks import SCORE
from configs.errors import ConfigError

ADAPTER = "default"


def add_lora(model: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
    """Adds LoRA matrices to the layers named in `lora.targets`; freezes everything else except a scalar head.

    Raises:
        ConfigError: a target is not the last part of the name of any linear layer of the model.
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
        if name.startswith(f"{SCORE}."):  # the scalar head is trained in full, because it is initialized to zero
            parameter.requires_grad_(True)


@contextmanager
def without_lora(model: PreTrainedModel) -> Iterator[None]:
    """Makes `model` compute without its LoRA matrices inside the block: as the model that they were added to."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        layer._disable_adapters = True  # `enable_adapters` would also change which parameters have gradients
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def name_without_lora(name: str) -> str | None:
    """Returns a parameter's name in the model without LoRA; None for a LoRA matrix."""
    return None if ".lora_" in name else name.replace(".base_layer.", ".")


@torch.no_grad()
def merged(model: PreTrainedModel, block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merges LoRA matrices into the weights of `block`, in the same way as peft.

    Args:
        model: the model with its LoRA matrices, gathered.
        block: full weights of `model`, by name.

    Returns:
        The weights, by their names in the model without LoRA. If `model` has no LoRA matrices, these are the weights of
        `block`, unchanged.
    """
    weights = {}
    for name, tensor in block.items():
        layer, wrapped, rest = name.partition(".base_layer.")
        if wrapped and rest == "weight":
            tensor = tensor + model.get_submodule(layer).get_delta_weight(ADAPTER).to(tensor.dtype)
        if plain := name_without_lora(name):
            weights[plain] = tensor
    return weights
