"""Checks of a checkpoint's folder that read only its small files and the headers of its weight files.

Every function that rejects something raises a ConfigError whose message starts with `what`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.model_folder.config_json import CONFIG, read_config, transformers_config
from actors.model_folder.weights import tensor_shapes
from configs.errors import ConfigError

SCORE = "score"
"""Name of the scalar head's linear layer, in Transformers' sequence classifiers and in vLLM."""
HEAD = f"{SCORE}.weight"  # shape (outputs, hidden)


def require_supported(folder: Path, what: str) -> None:
    """Rejects a checkpoint whose architecture the installed Transformers does not support.

    Args:
        folder: the checkpoint's folder.
        what: the setting that names the folder, for the message.

    Raises:
        ConfigError: Transformers has no class for the model type or architecture, the checkpoint needs custom Python
            code (`auto_map`), or Transformers rejects its config.json.
    """
    from transformers import __version__
    from transformers.models.auto import modeling_auto as auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    config = read_config(folder, what)
    where = f"{what}: {folder / CONFIG}"
    if not config.get("model_type"):
        raise ConfigError(f"{where}: has no model_type, so it is not a Transformers model's; name a model's folder")
    kind = str(config["model_type"])
    if kind not in CONFIG_MAPPING_NAMES:
        if config.get("auto_map"):
            raise ConfigError(
                f"{where}: model_type {kind!r} needs Python code of the checkpoint (auto_map), which is never run "
                "(there is no trust_remote_code here); name a model of a family that Transformers has"
            )
        raise ConfigError(f"{where}: model_type {kind!r} is unknown to Transformers {__version__}; name another model")
    decoders = _classes(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, kind)
    classes = [
        *decoders,
        *_classes(auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, kind),
        *(generic_name(name) for name in decoders),
    ]
    for name in config.get("architectures") or ():
        if name.lower() not in (known.lower() for known in classes):
            raise ConfigError(
                f"{where}: architecture {name} of model_type {kind!r} is neither a causal language model nor a sequence "
                f"classifier of Transformers {__version__} ({', '.join(classes) or 'it has none'}); name another model"
            )
    transformers_config(folder, what)


def require_trainable(config: Mapping[str, Any], folder: Path, what: str) -> None:
    """Rejects invalid dropout settings, and quantized weights, which only engines can load."""
    require_probabilities(config, folder, what)
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else "unknown"
        raise ConfigError(
            f"{what}: {folder} is quantized ({method}), which only engines for evaluation and serving load; name the unquantized model that it was "
            "made from"
        )


def require_probabilities(config: Mapping[str, Any], folder: Path, what: str) -> None:
    """Rejects a dropout setting outside [0, 1), which would fail at the first step."""
    for name, value in config.items():
        if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value < 1:
            raise ConfigError(f"{what}: {folder / CONFIG}: {name} is {value}; it must be at least 0 and below 1")


def vocabulary_rows(config: Mapping[str, Any]) -> int | None:
    """Returns the number of embedding rows according to config.json; None if it does not specify one."""
    rows = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return None if rows is None else int(rows)


def window_of(config: Mapping[str, Any]) -> int:
    """Returns the size of the sliding window in tokens; 0 if the model has none."""
    return int(config.get("sliding_window") or 0) if config.get("use_sliding_window", True) else 0


def require_rows(tokenizer: Any, config: Mapping[str, Any], what: str) -> None:
    """Rejects a tokenizer with ids that the model's embedding has no row for.

    Special tokens that are not used, such as the image token in Gemma 3's text models, are exempt. A special token is
    used if it occurs in the chat template or is the bos, eos, unk, or pad token.
    """
    rows, vocabulary = vocabulary_rows(config), tokenizer.get_vocab()
    added = tokenizer.added_tokens_decoder
    used = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token}
    beyond = [
        token
        for token, number in vocabulary.items()
        if rows is not None and number >= rows
        if number not in added or not added[number].special or token in used or token in str(tokenizer.chat_template)
    ]
    if beyond:
        tokens = max(vocabulary.values()) + 1
        raise ConfigError(
            f"{what}: the tokenizer has {tokens} tokens and the model {rows}; use the tokenizer that the model was trained "
            "with, or extend the model with python -m trainers.vocabulary"
        )


def is_scorer(config: Mapping[str, Any]) -> bool:
    """Returns whether a model has a head for sequence classification instead of a language-model head."""
    return any("SequenceClassification" in name for name in config.get("architectures") or ())


def require_scorer(config: Mapping[str, Any], folder: Path, what: str) -> None:
    """Rejects a model without a scalar head."""
    if not is_scorer(config):
        raise ConfigError(f"{what}: {folder} has no scalar head; name one that trainers.reward made")


def require_one_output(folder: Path, what: str) -> None:
    """Rejects a sequence classifier with several outputs or without the head's weights; accepts a language model."""
    config = read_config(folder, what)
    if not is_scorer(config):
        return
    shapes = tensor_shapes(folder, what)
    outputs = shapes[HEAD][0] if HEAD in shapes else _labels(config)
    if outputs == 1 and HEAD not in shapes:
        raise ConfigError(
            f"{what}: the weights in {folder} have no {HEAD}, the head that config.json says; export the reward model again"
        )
    if outputs != 1:
        raise ConfigError(
            f"{what}: the head of {folder} has {outputs} outputs; one is needed: name a reward model with a scalar head"
        )


def _labels(config: Mapping[str, Any]) -> int:
    """Returns the number of labels according to config.json; two, Transformers' default, if it specifies none."""
    return int(config.get("num_labels") or len(config.get("id2label") or ()) or 2)


def generic_name(decoder: str) -> str:
    """Returns the name of the scalar-head class that `scorer.py` creates for a decoder class without a classifier."""
    return f"{decoder.removesuffix('ForCausalLM')}ForSequenceClassification"


def _classes(mapping: Mapping[str, Any], kind: str) -> list[str]:
    found = mapping.get(kind, ())
    return [found] if isinstance(found, str) else list(found)
