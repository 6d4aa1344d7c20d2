"""A recipe's `chat` section, applied to a tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from configs.errors import ConfigError
from data.chat.probes import name_of
from data.chat.templates import read_template, with_arguments

if TYPE_CHECKING:
    from data.chat.config import ChatConfig  # loads pydantic, which commands without a recipe do not need


def apply_settings(tokenizer: Any, chat: ChatConfig) -> None:
    """Make the tokenizer's chat template the one that the settings ask for.

    Raises:
        ConfigError: no such template, or an argument that it does not use.
    """
    if chat.template is not None:
        tokenizer.chat_template = read_template(chat.template)
    if not chat.arguments:
        return
    if not tokenizer.chat_template:
        raise ConfigError(f"{name_of(tokenizer)}: chat.arguments needs a chat template; set chat.template")
    tokenizer.chat_template = with_arguments(tokenizer.get_chat_template(), chat.arguments)
