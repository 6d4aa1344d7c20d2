"""Compares a checkpoint's tensors with the model's, and decides whether ranks can read it into shards.

Ranks can read it into shards if its files hold exactly the model's parameters. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from actors.model_folder.adapters import is_adapter
from actors.model_folder.checks import HEAD
from actors.model_folder.config_json import CONFIG, read_config
from actors.model_folder.source import local_dir
from actors.model_folder.weights import Stored, stored_tensors, weight_files
from actors.sizing.shape import FAMILIES, shape_of
from configs.errors import ConfigError

Shapes = Mapping[str, tuple[int, ...]]

LM_HEAD = "lm_head."
"""Prefix of the names of the output embedding's parameters; a scorer has no output embedding."""
CONVERTED = "Transformers converts its tensors while it reads them"
_FLOATS = ("F32", "F16", "BF16")
_RECOMPUTED = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$|\.attn\.bias$")
"""Matches the names of buffers in old checkpoints that models now compute themselves."""


class Differences(NamedTuple):
    """Names of the tensors that differ between a model and a checkpoint's files; three empty lists if none differ."""

    missing: list[str]
    """Tensors that the model has and the files lack."""
    unexpected: list[str]
    """Tensors that the files have and the model lacks."""
    reshaped: list[str]
    """Tensors that both have, with different shapes."""


def differences(model: Shapes, files: Shapes) -> Differences:
    """Compares the tensors of a model with those of a checkpoint's files, except for buffers that models recompute.

    Args:
        model: shapes of the model's tensors, by name.
        files: shapes of the checkpoint's tensors, by name.
    """
    return Differences(
        [name for name in model if name not in files],
        [name for name in files if name not in model and not _RECOMPUTED.search(name)],
        [name for name, shape in files.items() if name in model and tuple(model[name]) != tuple(shape)],
    )


def whole_because(parameters: Shapes, stored: Mapping[str, Stored] | None, scorer: bool) -> str:
    """Returns why every rank must read the whole checkpoint instead of a shard; empty if shards are possible.

    Args:
        parameters: shapes of the model's parameters, by name; each tied parameter occurs once.
        stored: the checkpoint's tensors, by name; None if they are not in safetensors files.
        scorer: whether the model has a scalar head. If the files have no head, the model gets a new one, and the
            files' output embedding is ignored.
    """
    if stored is None:
        return "its weights are not in safetensors files"
    wanted = dict(parameters)
    there = dict(stored)
    if scorer and HEAD not in there:
        wanted.pop(HEAD, None)
        there = {name: tensor for name, tensor in there.items() if not name.startswith(LM_HEAD)}
    differ = differences(wanted, {name: tensor.shape for name, tensor in there.items()})
    for name in differ.missing:
        return f"its files have no {name}"
    for name in differ.unexpected:
        return f"its files have {name}, which is no parameter of the model"
    for name in differ.reshaped:
        return f"its files have {name} with the shape {there[name].shape}, and the model with {tuple(wanted[name])}"
    for name in wanted:
        if there[name].dtype not in _FLOATS:
            return f"its files have {name} as {there[name].dtype}, which is none of {', '.join(_FLOATS)}"
    return ""


def reads_whole(name: str, scorer: bool) -> str | None:
    """Returns the reason of `whole_because` for the model `name`; None if its files are not on this machine.

    Raises:
        ConfigError: config.json or the weights cannot be read.
    """
    folder = local_dir(name)
    if folder is None:
        return None
    if is_adapter(folder):
        return "it is an adapter, which is first merged into its base"
    return _reads_whole(folder, scorer, folder.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _reads_whole(folder: Path, scorer: bool, _: int) -> str | None:
    """Returns `reads_whole`'s result, cached: a preflight's search for settings that fit calls it hundreds of times."""
    if not _complete(folder):
        return None
    config, where = read_config(folder, "model"), str(folder / CONFIG)
    shape = shape_of(config, where)
    if shape.counts is not None and shape.counts.converted:
        return CONVERTED
    return whole_because(parameter_shapes(config, where, scorer), stored_tensors(folder, "model"), scorer)


def parameter_shapes(config: Mapping[str, Any], where: str, scorer: bool = False) -> Shapes:
    """Returns the shape of every parameter of the model that a config.json describes, by name.

    A tied parameter occurs once.

    Args:
        config: content of config.json.
        where: name of the config in error messages.
        scorer: whether a scalar head replaces the output embedding.

    Raises:
        ConfigError: see `shape_of`.
    """
    shape = shape_of(config, where)
    shapes = _closed_form(config, where) if shape.counts is None else dict(shape.counts.shapes)
    if scorer:
        shapes = {name: found for name, found in shapes.items() if not name.startswith(LM_HEAD)}
        shapes[HEAD] = (1, shape.hidden)
    return shapes


def _closed_form(config: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    """Returns the parameter shapes of a family with a closed form; the counterpart of `Shape.parameters`."""
    shape, family = shape_of(config, where), config["model_type"]
    hidden, inner, q, kv = shape.hidden, shape.intermediate, shape.q, shape.kv
    output_bias = bool(config.get("attention_bias", FAMILIES[family][0])) and family != "qwen2"
    biases = {"q_proj": shape.qkv_bias, "k_proj": shape.qkv_bias, "v_proj": shape.qkv_bias, "o_proj": output_bias}
    biases |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), bool(config.get("mlp_bias")))
    attention = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q)}
    feed_forward = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    layer: dict[str, tuple[int, ...]] = {}
    for part, matrices in (("self_attn", attention), ("mlp", feed_forward)):
        for name, matrix in matrices.items():
            layer[f"{part}.{name}.weight"] = matrix
            if biases[name]:
                layer[f"{part}.{name}.bias"] = matrix[:1]
    if shape.qk_norm:
        layer |= {f"self_attn.{name}_norm.weight": (shape.head_dim,) for name in ("q", "k")}
    layer |= {f"{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab, hidden)}
    for number in range(shape.layers):
        found |= {f"model.layers.{number}.{name}": size for name, size in layer.items()}
    found["model.norm.weight"] = (hidden,)
    return found if shape.tied else found | {f"{LM_HEAD}weight": (shape.vocab, hidden)}


def _complete(folder: Path) -> bool:
    """Returns whether a folder has config.json and all weights; a repository may be only partly downloaded."""
    try:
        weight_files(folder, "")
    except ConfigError:  # raised again where the weights are needed, with the setting's name
        return False
    return (folder / CONFIG).is_file()
