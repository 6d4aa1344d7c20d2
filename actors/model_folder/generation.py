"""Reads and checks a checkpoint's generation settings, and repairs them before they are saved again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig

from actors.model_folder.config_json import CONFIG
from configs.errors import ConfigError
from data.chat.ends import GENERATION_CONFIG, configured_ends

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_RANGES: Mapping[str, Callable[[float], bool]] = {
    "temperature": lambda value: 0 <= value < math.inf,
    "top_p": lambda value: 0 < value <= 1,
    "min_p": lambda value: 0 <= value <= 1,
    "top_k": lambda value: -1 <= value < math.inf and value == int(value),
    "repetition_penalty": lambda value: 0 < value < math.inf,
}
"""Valid values of sampling parameters. Transformers saves any number, but rejects invalid ones when it generates."""


def make_generation_config_valid(model: PreTrainedModel) -> None:
    """Repairs the model's generation settings in place so that Transformers can save them; logs what it changes.

    Many LLaMA checkpoints have a generation_config.json that sets sampling parameters without `do_sample`. Transformers
    loads such a file but does not save it. It is meant for sampling, so `do_sample` is set. If the settings are still
    invalid, only the token ids are kept.
    """
    if not model.can_generate():
        return
    settings = model.generation_config
    if settings is None or (fault := _fault(settings)) is None:
        return
    if not settings.do_sample:
        settings.do_sample = True
        if _fault(settings) is None:
            logger.warning("generation_config.json has sampling parameters but no do_sample; it is set to true")
            return
    logger.warning("generation_config.json keeps token ids only, since it is not valid: %s", fault)
    ids = {name: _token_ids(getattr(settings, name)) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids)


def generation_settings(folder: Path) -> GenerationConfig:
    """Returns the generation settings in a model's folder, as Transformers' `from_pretrained` reads them."""
    if (folder / GENERATION_CONFIG).is_file():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig.from_pretrained(folder, config_file_name=CONFIG, _from_model_config=True)


def require_readable(folder: Path, key: str) -> None:
    """Rejects a checkpoint whose generation_config.json Transformers cannot load or whose end tokens are invalid.

    Args:
        folder: the checkpoint's folder.
        key: the setting that names the folder, for the message.

    Raises:
        ConfigError: the file cannot be loaded, or its end tokens are invalid; the message names the file and the
            reason.
    """
    path = folder / GENERATION_CONFIG
    if not path.is_file():
        return
    configured_ends(folder)
    try:
        GenerationConfig.from_pretrained(folder)
    except Exception as error:  # Transformers accepts any JSON and may raise anything
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{key}: {path}: Transformers cannot read it ({type(error).__name__}: {reason}); repair or delete the file"
        ) from error


def _token_ids(value: Any) -> Any:
    """Returns `value` without invalid token ids, such as the -1 that some LLaMA checkpoints have for padding."""
    if isinstance(value, list):
        return [one for one in value if _token_ids(one) is not None] or None
    return value if isinstance(value, int) and value >= 0 else None


def _fault(settings: GenerationConfig) -> str | None:
    """Returns why Transformers cannot save the settings or engines cannot sample with them; None if they can."""
    for name, fits in _RANGES.items():
        value = getattr(settings, name, None)
        if value is not None and not (isinstance(value, int | float) and not isinstance(value, bool) and fits(value)):
            return f"{name} is {value!r}"
    if settings.do_sample and settings.temperature == 0:
        return "do_sample is true and temperature is 0"
    try:
        settings.validate(strict=True)
    except ValueError as error:
        return " ".join(str(error).split())[:200]
    return None
