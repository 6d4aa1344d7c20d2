"""Finds a decoder's sequence-classifier class (scalar head): its family's own in Transformers, or a generic one."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
)

from actors.model_folder.checks import generic_name
from configs.errors import ConfigError


def scorer_class(config: PretrainedConfig, where: str) -> type[PreTrainedModel]:
    """Returns the class whose `from_pretrained` loads a decoder with this config and a head `score`.

    Raises:
        ConfigError: the config is not that of a decoder-only language model; the message starts with `where`.
    """
    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return _first(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)])
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(f"{where}: {config.model_type} is no decoder-only language model; name one")
    decoder = _first(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])
    family = next(base for base in decoder.__mro__ if base.__name__.endswith("PreTrainedModel"))
    return type(
        generic_name(decoder.__name__), (GenericForSequenceClassification, family), {"__module__": family.__module__}
    )


def _first(found: Any) -> type[PreTrainedModel]:
    """Returns the first of the classes that Transformers maps a config to, if there are several."""
    chosen: type[PreTrainedModel] = found[0] if isinstance(found, (list, tuple)) else found
    return chosen
