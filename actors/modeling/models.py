"""Loads models from and saves them to Hugging Face folders, always with packed attention."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from actors.config import ArchitectureConfig
from actors.model_folder.checks import HEAD, SCORE, is_scorer
from actors.model_folder.completeness import load_complete
from actors.model_folder.config_json import CONFIG, read_config, transformers_config
from actors.model_folder.generation import generation_settings, make_generation_config_valid
from actors.model_folder.scorer import scorer_class
from actors.model_folder.source import model_dir
from actors.modeling.attention import ATTENTION
from actors.modeling.selfcheck import check_packing
from storage.durable import writing


def new_causal_lm(
    architecture: ArchitectureConfig, vocab_size: int, bos: int, eos: int, pad: int, seed: int
) -> PreTrainedModel:
    """Returns a new Llama model in fp32 with random weights, deterministic in `seed`."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.kv_heads,
        max_position_embeddings=architecture.context,
        tie_word_embeddings=architecture.tie_embeddings,
        rope_theta=architecture.rope_theta,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
        attn_implementation=ATTENTION,
    )
    return LlamaForCausalLM(config).float()


@dataclass(frozen=True)
class Pretrained:
    """A model's folder, and the Transformers class that loads it."""

    folder: Path
    read: Callable[..., Any]
    """`from_pretrained` of the class."""
    make: Callable[..., PreTrainedModel]
    """`from_config` of the class."""
    options: Mapping[str, Any]
    """Settings that override those of config.json."""
    new_head: bool = False
    """Whether a causal language model gets a new scalar head, initialized to zero so that its scores start at 0."""

    @classmethod
    def causal_lm(cls, name: str) -> Pretrained:
        """Returns the causal language model `name`, a folder or Hub id.

        Raises:
            ConfigError: the model does not exist, or packed training would compute it incorrectly.
        """
        path = model_dir(name)
        check_packing(transformers_config(path, name), name)
        return cls(path, AutoModelForCausalLM.from_pretrained, AutoModelForCausalLM.from_config, {})

    @classmethod
    def scorer(cls, name: str) -> Pretrained:
        """Returns a model with a scalar head, like `causal_lm`; a causal language model gets a new head."""
        path = model_dir(name)
        config = transformers_config(path, name)
        check_packing(config, name)
        loader: Any = scorer_class(config, name)
        new_head = not is_scorer({"architectures": config.architectures})
        return cls(path, loader.from_pretrained, loader._from_config, {"num_labels": 1}, new_head)

    def whole(self, dtype: torch.dtype) -> PreTrainedModel:
        """Loads the model with all its weights on the CPU.

        Raises:
            ConfigError: the checkpoint lacks tensors of the model.
        """
        new = [HEAD] if self.new_head else []
        settings = {"dtype": dtype, "attn_implementation": ATTENTION, **self.options}
        model: PreTrainedModel = load_complete(self.read, self.folder, new, **settings)
        if self.new_head:
            with torch.no_grad():
                model.get_submodule(SCORE).weight.zero_()
        return model

    def empty(self, dtype: torch.dtype) -> PreTrainedModel:
        """Returns the same model as `whole`, but with its parameters on the `meta` device, which takes no memory."""
        config = transformers_config(self.folder, "model", **self.options)
        with init_empty_weights(include_buffers=False):
            model = self.make(config, dtype=dtype, attn_implementation=ATTENTION)
        model.tie_weights()  # again, because registering a parameter on `meta` creates a new one
        if model.can_generate():
            model.generation_config = generation_settings(self.folder)
        return model.eval()


def load_causal_lm(folder: str, dtype: torch.dtype, dropout: bool = False) -> PreTrainedModel:
    """Loads the causal language model in `folder` in full.

    Args:
        folder: a Hugging Face folder or Hub id.
        dtype: the parameters' dtype.
        dropout: whether to keep the dropout of the model's config in training mode. Without it, a policy in training
            mode computes the same as the engines, so that the first step's ratio is exactly 1.

    Raises:
        ConfigError: see `Pretrained.causal_lm`.
    """
    model = Pretrained.causal_lm(folder).whole(dtype)
    return model if dropout else without_dropout(model)


def load_scorer(folder: str, dtype: torch.dtype, dropout: bool = False) -> PreTrainedModel:
    """Loads the scalar-head model in `folder` in full; a causal language model gets a new head initialized to zero.

    A zero head makes the first scores of a new reward model or critic exactly 0, whatever the weights of its decoder.

    Args:
        folder: a Hugging Face folder or Hub id.
        dtype: the parameters' dtype.
        dropout: see `load_causal_lm`.

    Raises:
        ConfigError: see `Pretrained.causal_lm`.
    """
    model = Pretrained.scorer(folder).whole(dtype)
    return model if dropout else without_dropout(model)


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Sets the dropout probabilities of `model` to 0 and returns it. Its config, which is exported, is unchanged."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    return model


def save_pretrained(
    model: PreTrainedModel, weights: dict[str, torch.Tensor], folder: Path, settings: Mapping[str, Any] | None = None
) -> None:
    """Writes `weights` and the model's config to `folder`, in the format that Transformers and vLLM load.

    Args:
        model: its config and generation settings are written; the latter are made valid in place.
        weights: tensors by name.
        folder: where to write.
        settings: entries to add to config.json.

    Raises:
        DiskError: a file cannot be written.
    """
    make_generation_config_valid(model)
    with writing(folder):
        try:
            model.save_pretrained(folder, state_dict=weights)
        except SafetensorError as error:  # safetensors raises it instead of OSError
            raise OSError(str(error)) from error
        if settings:
            config = {**read_config(folder, "model"), **settings}
            (folder / CONFIG).write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
