"""Applies a recipe's `chat` section to a tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data.chat.probes import template_of
from data.chat.templates import read_template, with_arguments

if TYPE_CHECKING:
    from data.chat.config import ChatConfig  # loads pydantic, which commands without a recipe do not need


def apply_settings(tokenizer: Any, chat: ChatConfig) -> None:
    """Sets the tokenizer's chat template as configured.

    Raises:
        ConfigError: `chat.template` does not exist, arguments are given but the tokenizer has no template, or the
            template does not use an argument.
    """
    if chat.template is not None:
        tokenizer.chat_template = read_template(chat.template)
    if chat.arguments:
        tokenizer.chat_template = with_arguments(template_of(tokenizer), chat.arguments)
