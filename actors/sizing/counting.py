"""Counts the parameters of any decoder in Transformers from its config, by building it on the `meta` device."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from configs.errors import ConfigError, first_line

# Names of parameters in Transformers: those of a decoder layer, and those of one of a layer's experts.
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.(.+)$")
_EXPERT = re.compile(r"(?:^|\.)experts\.\d+\.")
_ATTENTION = re.compile(r"attn|attention|mixer")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "moe_topk", "top_k_experts")


@dataclass(frozen=True)
class Counts:
    """Parameter counts and sizes of a model."""

    parameters: int
    """All parameters, each once."""
    head: int
    """Parameters of the output embedding; 0 if it is tied to the input embedding."""
    matrices: int
    """Elements of the layers' matrices that a token is multiplied with; of experts, only those that it is routed to."""
    activations: int
    """Upper bound of the elements that one token keeps in any layer for the backward pass, with fused attention."""
    linears: Mapping[str, int] = field(hash=False)
    """Sum of the input and output widths of all linear layers of the same name, by name, such as `q_proj`.

    Multiplied by LoRA's rank, it is the number of LoRA's parameters.
    """
    sizes: Mapping[str, int] = field(hash=False)
    """Sizes from the config, by the field names of `actors.sizing.shape.Shape`."""
    shapes: Mapping[str, tuple[int, ...]] = field(hash=False)
    """The shape of every parameter, by name; each tied parameter occurs once."""
    converted: bool
    """Whether Transformers renames, splits, or joins the tensors of its checkpoints while it reads them."""


def count(config: Mapping[str, Any], where: str) -> Counts:
    """Counts the parameters of the model that a config.json describes. Imports torch; takes about a second.

    Args:
        config: content of config.json.
        where: name of the config in error messages.

    Raises:
        ConfigError: Transformers has no causal language model for the config, or cannot build it.
    """
    return _count(json.dumps(config, sort_keys=True), where)


@lru_cache(maxsize=32)
def _count(text: str, where: str) -> Counts:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = json.loads(text)
    kind = settings.pop("model_type", None)
    for name in ("quantization_config", "auto_map", "architectures", "dtype", "torch_dtype"):
        settings.pop(name, None)
    try:
        config = AutoConfig.for_model(kind, **settings)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        tied = head is None or head.weight is embedding.weight
        sizes = _sizes(config.get_text_config(), tied)
    except Exception as error:
        raise ConfigError(
            f"{where}: its memory cannot be estimated, since Transformers cannot build a causal language model of "
            f"model_type {kind!r} ({first_line(error)}); name another model"
        ) from error
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return Counts(
        parameters=sum(map(_size, shapes.values())),
        head=0 if tied else sum(parameter.numel() for parameter in head.parameters()),
        sizes=sizes,
        shapes=shapes,
        converted=converts(model),
        **_layers(shapes, config.get_text_config()),
    )


def converts(model: Any) -> bool:
    """Returns whether Transformers renames, splits, or joins the tensors of this model's checkpoints on reading."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    return bool(get_model_conversion_mapping(model, add_legacy=False))  # the legacy ones are for obsolete names


def _sizes(config: Any, tied: bool) -> dict[str, int]:
    heads = int(config.num_attention_heads)
    intermediate = getattr(config, "intermediate_size", None) or getattr(config, "moe_intermediate_size", None)
    return {
        "hidden": int(config.hidden_size),
        "layers": int(config.num_hidden_layers),
        "intermediate": int(intermediate or 4 * config.hidden_size),
        "heads": heads,
        "kv_heads": int(getattr(config, "num_key_value_heads", None) or heads),
        "head_dim": max(_head_dim(config), int(getattr(config, "global_head_dim", None) or 0)),
        "vocab": int(config.vocab_size),
        "context": int(getattr(config, "max_position_embeddings", None) or 4096),
        "tied": int(tied),
    }


def _layers(shapes: Mapping[str, tuple[int, ...]], config: Any) -> dict[str, Any]:
    """Returns the fields of `Counts` that describe decoder layers: `matrices`, `activations`, and `linears`."""
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if found := _LAYER.search(name):
            layers.setdefault(int(found[1]), {})[found[2]] = shape
    linears: dict[str, int] = {}
    matrices = widest = 0
    for layer in layers.values():
        experts = max((shape[0] for shape in layer.values() if len(shape) == 3), default=0)
        share = _share(config, experts)
        for name, shape in layer.items():
            routed = len(shape) == 3 or _EXPERT.search(name) is not None
            if len(shape) < 2 or (routed and name.endswith("bias")):
                continue
            matrices += int(_size(shape) * (share if routed else 1))
            if len(shape) == 2:
                leaf = name.removesuffix(".weight").rpartition(".")[2]
                linears[leaf] = linears.get(leaf, 0) + sum(shape)
        widest = max(widest, _activations(layer, config, share))
    return {"matrices": matrices, "activations": widest, "linears": linears}


def _share(config: Any, experts: int) -> float:
    """Returns the fraction of a layer's experts that a token is routed to; 1 if the config does not specify it."""
    experts = experts or _setting(config, _EXPERTS)
    chosen = _setting(config, _CHOSEN)
    return min(1.0, chosen / experts) if chosen and experts else 1.0


def _activations(layer: Mapping[str, tuple[int, ...]], config: Any, share: float) -> int:
    """Returns an upper bound of the elements that one token keeps in a layer for the backward pass.

    A norm keeps its input, the normalized, and the scaled values. A matrix keeps its output, and its input unless that
    is a norm's output. Attention and the feed-forward layer each keep their widest output a second time: after the
    activation function, or copied to another memory layout.
    """
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    total = 0.0
    widest = {True: 0.0, False: 0.0}  # widest output of attention (True), and of all other matrices (False)
    for name, shape in layer.items():
        attention = _ATTENTION.search(name) is not None
        if len(shape) == 1 and name.endswith("weight"):
            total += 3 * shape[0] * (heads if shape[0] == _head_dim(config) else 1)
        elif len(shape) == 2 and _EXPERT.search(name):
            total += share * (2 * shape[0] + shape[1] + hidden)
        elif len(shape) == 2 and not name.endswith("bias"):
            total += shape[0] + (shape[1] if shape[1] != hidden else 0)
            widest[attention] = max(widest[attention], shape[0])
        elif len(shape) == 3:
            total += share * shape[0] * (shape[1] + shape[2] + hidden)
            widest[attention] = max(widest[attention], share * shape[0] * max(shape[1:]))
    return int(total + sum(widest.values()))


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _setting(config: Any, names: tuple[str, ...]) -> int:
    for name in names:
        if isinstance(value := getattr(config, name, None), int) and value:
            return value
    return 0


def _size(shape: tuple[int, ...]) -> int:
    product = 1
    for width in shape:
        product *= width
    return product
