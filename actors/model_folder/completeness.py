"""Checks that a checkpoint's weights match the model that its config.json describes.

Transformers would silently initialize missing tensors with random numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from actors.model_folder.checks import is_scorer
from actors.model_folder.config_json import CONFIG, read_config, transformers_config
from actors.model_folder.layout import differences
from actors.model_folder.scorer import scorer_class
from actors.model_folder.weights import tensor_shapes
from configs.errors import ConfigError, first_line

_LAYER = re.compile(r"\.\d+\.")


def require_complete(folder: Path, what: str) -> None:
    """Rejects weights that lack tensors of the model, have more layers, or have other shapes. Reads only headers.

    If a checkpoint has tensors with names that the model lacks, which Transformers may rename, only the shapes of the
    other tensors are compared; `load_complete` finds missing ones. Quantized checkpoints are not checked.

    Raises:
        ConfigError: a tensor is missing, is unexpected, or has another shape (the message names the first one), or
            Transformers cannot build the model that config.json describes.
    """
    config = read_config(folder, what)
    if config.get("quantization_config"):
        return
    model = _on_meta(folder, config, what)
    whole = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = tensor_shapes(folder, what)
    differ = differences(whole, found)
    for name in differ.reshaped:
        raise ConfigError(
            f"{what}: {folder}: config.json asks for {name} of shape {whole[name]} and the weights have {found[name]}; use "
            "the config.json that belongs to them"
        )
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    for name in differ.unexpected:
        of_first_layer = _LAYER.sub(".0.", name, count=1)
        if of_first_layer in whole and not any(re.search(one, name) for one in ignored):
            raise ConfigError(
                f"{what}: {folder}: the weights have {name}, and config.json describes a model with fewer layers; use the "
                "config.json that belongs to them"
            )
    if not differ.unexpected:
        # Only parameters are required: the model computes its buffers, and a tied parameter is stored once.
        missing = set(differ.missing)
        _require_none(folder, what, [name for name, _ in model.named_parameters() if name in missing])


def load_complete(
    load: Callable[..., tuple[Any, dict[str, Any]]], folder: Path, new: Sequence[str] = (), **settings: Any
) -> Any:
    """Loads a model and checks that no tensor was missing.

    Args:
        load: `from_pretrained` of a class.
        folder: the checkpoint's folder.
        new: names of the parameters that may be missing.
        settings: further arguments of `load`.

    Raises:
        ConfigError: the checkpoint lacks other parameters.
    """
    model, info = load(folder, output_loading_info=True, **settings)
    _require_none(folder, "model", sorted(name for name in info["missing_keys"] if name not in new))
    return model


def _require_none(folder: Path, what: str, missing: Sequence[str]) -> None:
    if missing:
        raise ConfigError(
            f"{what}: the weights in {folder} lack {len(missing)} tensors of the model that config.json describes, such as "
            f"{missing[0]}; copy or export the model again"
        )


def _on_meta(folder: Path, config: dict[str, Any], what: str) -> PreTrainedModel:
    settings = transformers_config(folder, what)
    try:
        with torch.device("meta"):
            if is_scorer(config):
                settings.num_labels = 1
                return scorer_class(settings, what)(settings)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(settings)
            return model
    except ConfigError:
        raise
    except Exception as error:  # an unknown architecture may fail in any way; the message names it
        raise ConfigError(
            f"{what}: {folder / CONFIG}: Transformers cannot make this model: {first_line(error)}"
        ) from error
