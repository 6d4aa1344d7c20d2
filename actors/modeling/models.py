"""Models in and out of Hugging Face folders, all with packed attention."""

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
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from actors.config import ArchitectureConfig
from actors.model_folder.checks import SCORE, is_scorer
from actors.model_folder.completeness import load_complete
from actors.model_folder.generation import generation_settings, make_generation_config_valid
from actors.model_folder.scorer import scorer_class
from actors.model_folder.source import model_dir
from actors.modeling.attention import ATTENTION
from actors.modeling.selfcheck import check_packing
from storage.durable import writing


def new_causal_lm(
    architecture: ArchitectureConfig, vocab_size: int, bos: int, eos: int, pad: int, seed: int
) -> PreTrainedModel:
    """A Llama-shaped model with random weights, the same for the same seed."""
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
    """A model's folder, and what Transformers loads it as."""

    folder: Path
    read: Callable[..., Any]
    """`from_pretrained` of its class."""
    make: Callable[..., PreTrainedModel]
    """`from_config` of its class."""
    options: Mapping[str, Any]
    """What its config has otherwise than config.json."""
    new_head: bool = False
    """Whether it is a causal language model on which a scalar head is put, zero so that it starts at 0."""

    @classmethod
    def causal_lm(cls, name: str) -> Pretrained:
        """The causal language model that `name` names. Raises ConfigError where there is none, or it cannot be packed."""
        path = model_dir(name)
        check_packing(AutoConfig.from_pretrained(path), name)
        return cls(path, AutoModelForCausalLM.from_pretrained, AutoModelForCausalLM.from_config, {})

    @classmethod
    def scorer(cls, name: str) -> Pretrained:
        """The same of a model with a scalar head; on a causal language model's weights a new one is put."""
        path = model_dir(name)
        config = AutoConfig.from_pretrained(path)
        check_packing(config, name)
        loader: Any = scorer_class(config, name)
        new_head = not is_scorer({"architectures": config.architectures})
        return cls(path, loader.from_pretrained, loader._from_config, {"num_labels": 1}, new_head)

    def whole(self, dtype: torch.dtype) -> PreTrainedModel:
        """The model with its weights."""
        new = [f"{SCORE}.weight"] if self.new_head else []
        settings = {"dtype": dtype, "attn_implementation": ATTENTION, **self.options}
        model: PreTrainedModel = load_complete(self.read, self.folder, new, **settings)
        if self.new_head:
            with torch.no_grad():
                model.get_submodule(SCORE).weight.zero_()
        return model

    def empty(self, dtype: torch.dtype) -> PreTrainedModel:
        """The model as `whole` gives it, but with its parameters on the `meta` device, which takes no memory."""
        config = AutoConfig.from_pretrained(self.folder, **self.options)
        with init_empty_weights(include_buffers=False):
            model = self.make(config, dtype=dtype, attn_implementation=ATTENTION)
        model.tie_weights()  # again: registering a parameter there makes another one
        if model.can_generate():
            model.generation_config = generation_settings(self.folder)
        return model.eval()


def load_causal_lm(folder: str, dtype: torch.dtype, dropout: bool = False) -> PreTrainedModel:
    """The causal language model in `folder`, whole. Raises a one-line error where there is none.

    Args:
        dropout: whether training mode has the dropout of the model's config. Without it, a policy in training mode computes
            what the engines do, so that the first step's ratio is exactly 1.
    """
    model = Pretrained.causal_lm(folder).whole(dtype)
    return model if dropout else without_dropout(model)


def load_scorer(folder: str, dtype: torch.dtype, seed: int, dropout: bool = False) -> PreTrainedModel:
    """The scalar-head model in `folder`, whole; on a causal model's weights a new head is put, zero so that it starts at 0.

    A zero head makes the first scores of a fresh reward model or critic exactly 0, whatever the seed of its trunk.
    `dropout`: see `load_causal_lm`.
    """
    found = Pretrained.scorer(folder)
    torch.manual_seed(seed)
    model = found.whole(dtype)
    return model if dropout else without_dropout(model)


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """`model`, with every probability of dropout in its modules 0. Its config, which the export has, keeps its own."""
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
    """Writes `weights` and the model's config, with `settings` in it, to `folder` so that Transformers and vLLM load them.

    Raises DiskError.
    """
    make_generation_config_valid(model)
    with writing(folder):
        try:
            model.save_pretrained(folder, state_dict=weights)
        except SafetensorError as error:  # where Python would raise OSError
            raise OSError(str(error)) from error
        if settings:
            path = folder / "config.json"
            config = {**json.loads(path.read_text(encoding="utf-8")), **settings}
            path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
