"""Miniatures of an architecture: the same layer types, arithmetic settings, and proportions, in few narrow layers."""

from __future__ import annotations

import math
from typing import Any

from transformers import AutoConfig, PretrainedConfig

WINDOW = 6  # size of a sliding window or an attention chunk, in tokens
SOFT_CAP = 1.0  # cap of attention scores, which are smaller in a miniature than in a trained model
HEAD = 16
EXPERTS = 4
VOCABULARY = 64

# Sizes that do not change the arithmetic, by their names in Transformers' configs.
_SIZES: dict[str, int] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "intermediate_size": 48,
    "intermediate_size_mlp": 48,
    "ffn_dim": 48,
    "ffn_hidden_size": 48,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 32,
    "num_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "n_routed_experts": EXPERTS,
    "moe_num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 12,
    "lora_rank": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id")
_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers", "attention_layers", "layers_block_type")


def layer_types(config: PretrainedConfig) -> list[str]:
    """Returns the distinct layer types of a model, in order; one empty name if the config has no `layer_types`."""
    return list(dict.fromkeys(getattr(config, "layer_types", None) or [""]))


def miniature(config: PretrainedConfig, only: str | None = None, head: int = HEAD) -> PretrainedConfig:
    """Returns a small model's config: one or two layers of each type, tiny widths, a window shorter than sequences.

    Args:
        config: the original model's config.
        only: restricts the layers to this type.
        head: size of an attention head.
    """
    settings = config.to_dict()
    layers = _chosen_layers(config, only)
    small: dict[str, Any] = {name: size for name, size in _SIZES.items() if settings.get(name)}
    small |= _heads(settings, head)
    for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
        if settings.get(name):
            small[name] = len(layers)
    for name in _PER_LAYER:
        if isinstance(values := settings.get(name), list) and len(values) == len(_all_layers(config)):
            small[name] = [values[index] for index in layers]
    for name in ("sliding_window", "attention_chunk_size", "window_size"):
        if settings.get(name):
            small[name] = WINDOW
    if settings.get("attn_logit_softcapping"):
        small["attn_logit_softcapping"] = SOFT_CAP
    small |= {name: number for number, name in enumerate(_IDS) if settings.get(name) is not None}
    settings |= small
    for name in ("quantization_config", "auto_map", "dtype", "torch_dtype", "architectures", "_name_or_path"):
        settings.pop(name, None)
    return AutoConfig.for_model(config.model_type, **{k: v for k, v in settings.items() if k != "model_type"})


def _all_layers(config: PretrainedConfig) -> range:
    return range(config.num_hidden_layers)


def _chosen_layers(config: PretrainedConfig, only: str | None) -> list[int]:
    """Returns the indices of the layers to keep: the first with every combination of attention and feed-forward type.

    If there is only one, its index is repeated, unless the model has only one layer.
    """
    kinds = [getattr(config, name, None) for name in ("layer_types", "mlp_layer_types")]
    count = len(_all_layers(config))
    seen: dict[tuple[Any, ...], int] = {}
    for index in range(count):
        kind = tuple(values[index] if values and len(values) == count else "" for values in kinds)
        if only in (None, "", kind[0]):
            seen.setdefault(kind, index)
    chosen = sorted(seen.values())
    return chosen if len(chosen) > 1 or count == 1 else [chosen[0], chosen[0]]


def _heads(settings: dict[str, Any], head: int) -> dict[str, int]:
    """Returns settings for attention heads, key and value heads, head size, and width, in the model's proportions."""
    names = [name for name in ("num_attention_heads", "n_head", "n_heads") if settings.get(name)]
    if not names:
        return {}
    heads = settings[names[0]]
    groups = settings.get("num_key_value_heads") or heads
    hidden = next(settings[name] for name in ("hidden_size", "n_embd", "d_model") if settings.get(name))
    ratio = max(1, heads // groups)
    kv = 1 if groups == 1 else 2
    size = settings.get("head_dim")
    square = not size or size * heads == hidden
    small = {names[0]: kv * ratio, "num_key_value_heads": kv, "hidden_size": kv * ratio * head * (1 if square else 2)}
    small |= {name: small["hidden_size"] for name in ("n_embd", "d_model") if settings.get(name)}
    if size:
        small["head_dim"] = 8 if settings.get("qk_rope_head_dim") else head
    if settings.get("global_head_dim"):
        small["global_head_dim"] = head
    if settings.get("num_global_key_value_heads"):
        small["num_global_key_value_heads"] = kv
    known = set(settings)
    return {name: number for name, number in small.items() if name in known or name in names}


def scale_of(fan_in: int) -> float:
    """Returns the standard deviation of a miniature's weights: large enough that attention is far from uniform."""
    return 1.5 / math.sqrt(max(1, fan_in))
