"""The shape of a decoder from its config.json alone: its parameters, and the activations and KV cache of a token.

Four families have a closed form, which imports no torch. For all other families, Transformers' own class is built on
the `meta` device, which takes no memory, and its parameters are counted; see `actors.sizing.counting`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

from actors.config import ArchitectureConfig
from actors.sizing.counting import Counts, count
from configs.errors import ConfigError

# Families with a closed form: model_type -> (whether q, k, v have biases by default, whether q and k are normalized)
FAMILIES: dict[str, tuple[bool, bool]] = {
    "llama": (False, False),
    "mistral": (False, False),
    "qwen2": (True, False),
    "qwen3": (False, True),
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder: of a LLaMA-like one in closed form, of any other one with counted parameters.

    A LLaMA-like decoder has RMS norms, rotary position embeddings, and gated feed-forward layers (Touvron et al. 2023).
    """

    hidden: int
    layers: int
    intermediate: int
    heads: int
    vocab: int
    kv_heads: int = 0  # 0: as many as heads
    head_dim: int = 0  # 0: hidden / heads
    context: int = 4096
    tied: int = 0  # 1: input and output embedding share one matrix
    qkv_bias: int = 0
    qk_norm: int = 0
    other_bias: int = 0  # bias elements per layer, in attention's output projection and the feed-forward layer
    counts: Counts | None = None  # counted sizes of a family without a closed form

    def __post_init__(self) -> None:
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.hidden // self.heads)

    @property
    def q(self) -> int:
        """Total width of the query heads."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Total width of the key heads, which equals that of the value heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer."""
        attention = 2 * self.hidden * self.q + 2 * self.hidden * self.kv
        biases = self.qkv_bias * (self.q + 2 * self.kv) + self.other_bias
        norms = 2 * self.hidden + self.qk_norm * 2 * self.head_dim
        return attention + 3 * self.hidden * self.intermediate + biases + norms

    def parameters(self, scorer: bool = False) -> int:
        """Returns the number of distinct parameters; with `scorer`, a scalar head replaces the output embedding."""
        if self.counts is not None:
            return self.counts.parameters - self.counts.head + self.hidden if scorer else self.counts.parameters
        head = self.hidden if scorer else 0 if self.tied else self.vocab * self.hidden
        return self.vocab * self.hidden + self.layers * self.layer_parameters + self.hidden + head

    @property
    def largest_parameter(self) -> int:
        """Number of elements of the largest parameter."""
        if self.counts is not None:
            return max(prod(shape) for shape in self.counts.shapes.values())
        return self.hidden * max(self.vocab, self.intermediate, self.q)

    @property
    def matrix_elements(self) -> int:
        """Number of elements of all layers' matrices that one token is multiplied with, without the embeddings."""
        if self.counts is not None:
            return self.counts.matrices
        return self.layers * (2 * self.hidden * (self.q + self.kv) + 3 * self.hidden * self.intermediate)

    def linear_widths(self, name: str) -> int:
        """Returns the sum of input and output widths of all linear layers named `name`, e.g. `q_proj`."""
        if self.counts is not None:
            return self.counts.linears.get(name, 0)
        others = {"q_proj": self.q, "k_proj": self.kv, "v_proj": self.kv, "o_proj": self.q}
        others |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), self.intermediate)
        return self.layers * (self.hidden + others[name]) if name in others else 0

    @property
    def kv_elements(self) -> int:
        """Number of elements of one token in the KV cache."""
        return 2 * self.layers * self.kv

    @property
    def layer_activations(self) -> int:
        """Number of elements that one token keeps in one layer for the backward pass, with fused attention.

        Each norm keeps its input, the normalized, and the scaled values; attention keeps q, k, v, and its output, which
        counts twice because it is copied to another memory layout; the feed-forward layer keeps gate, its activation,
        up, and their product. For a counted family, this is an upper bound for its widest layer.
        """
        if self.counts is not None:
            return self.counts.activations
        norms = 6 * self.hidden + self.qk_norm * 3 * (self.q + self.kv)
        return norms + 3 * self.q + 2 * self.kv + 4 * self.intermediate

    @property
    def fused_activations(self) -> int:
        """Number of elements that one token keeps in one layer for the backward pass, with Liger's kernels.

        Norms keep their input and output, rotary embeddings work in place, and the feed-forward layer keeps gate, up,
        and their product. For a counted family, this is the upper bound of `layer_activations`.
        """
        if self.counts is not None:
            return self.counts.activations
        norms = 4 * self.hidden + self.qk_norm * 2 * (self.q + self.kv)
        return norms + 2 * self.q + self.kv + 3 * self.intermediate


def shape_of(given: Mapping[str, Any], where: str) -> Shape:
    """Returns the shape that the content of a config.json describes.

    Args:
        given: content of config.json.
        where: name of the config in error messages.

    Raises:
        ConfigError: a setting is missing, or Transformers cannot build the model.
    """
    family = given.get("model_type")
    if family not in FAMILIES:
        counts = count(given, where)
        return Shape(**counts.sizes, counts=counts)
    bias, norm = FAMILIES[family]
    bias = bool(given.get("attention_bias", bias))
    try:
        hidden, intermediate = given["hidden_size"], given["intermediate_size"]
        return Shape(
            hidden=hidden,
            layers=given["num_hidden_layers"],
            intermediate=intermediate,
            heads=given["num_attention_heads"],
            kv_heads=given.get("num_key_value_heads") or 0,
            head_dim=given.get("head_dim") or 0,
            vocab=given["vocab_size"],
            context=given.get("max_position_embeddings", 4096),
            tied=int(given.get("tie_word_embeddings", False)),
            qkv_bias=int(bias),
            qk_norm=int(norm),
            other_bias=(hidden if bias and family != "qwen2" else 0)
            + (2 * intermediate + hidden if given.get("mlp_bias") else 0),
        )
    except KeyError as error:
        raise ConfigError(f"{where}: has no {error.args[0]}; name a complete model folder") from error


def new_shape(architecture: ArchitectureConfig, vocab: int) -> Shape:
    """Returns the shape of a new model with `architecture` and a vocabulary of `vocab` tokens."""
    return Shape(
        hidden=architecture.hidden_size,
        layers=architecture.layers,
        intermediate=architecture.intermediate_size,
        heads=architecture.heads,
        kv_heads=architecture.kv_heads,
        vocab=vocab,
        context=architecture.context,
        tied=int(architecture.tie_embeddings),
    )


def vocabulary(folder: Path) -> int:
    """Returns the vocabulary size of the tokenizer in `folder`. Raises ConfigError if tokenizer.json is unreadable."""
    path = folder / "tokenizer.json"
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        tokens = {*given["model"]["vocab"], *(token["content"] for token in given.get("added_tokens", ()))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read; name a tokenizer's folder") from error
    return len(tokens)


def parse_shape(text: str) -> Shape:
    """Parses `hidden=5120,layers=40,intermediate=13824,heads=40,vocab=39424`, with the field names of `Shape`.

    Raises:
        ConfigError: a name is unknown or missing, or a value is not a valid number.
    """
    known = {field.name for field in fields(Shape)} - {"counts"}
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in known or not number.isdecimal():
            raise ConfigError(f"--shape: {part!r} is not NAME=NUMBER; the names are {', '.join(sorted(known))}")
        given[name] = int(number)
    missing = {"hidden", "layers", "intermediate", "heads", "vocab"} - set(given)
    if missing or not all(given[name] for name in ("hidden", "layers", "heads", "vocab")):
        raise ConfigError(f"--shape: give {', '.join(sorted(missing or given))} as numbers above 0")
    return Shape(**given)
