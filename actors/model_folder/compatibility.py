"""Checks that two models can process the same token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from data.chat import chat_format
from storage.paths import resolve


def require_same_format(model: str | Path, tokenizer: Any, other: str | Path, other_tokenizer: Any) -> None:
    """Rejects two models with different vocabularies or chat formats.

    Raises:
        ConfigError: the vocabularies or chat formats differ; the message names both folders.
    """
    if tokenizer.get_vocab() != other_tokenizer.get_vocab():
        raise ConfigError(f"{resolve(model)} and {resolve(other)} have different vocabularies; use models of one")
    if chat_format(tokenizer).examples != chat_format(other_tokenizer).examples:
        raise ConfigError(f"{resolve(model)} and {resolve(other)} have different chat formats; use models of one")
