"""Finds the tokens that a user names by their text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from configs.errors import ConfigError


def single_tokens(tokenizer: Any, texts: Iterable[str], key: str) -> tuple[int, ...]:
    """Returns the id of each text, which must be one token: an entry of the vocabulary, or text that encodes to one.

    Raises:
        ConfigError: a text is not exactly one token; the message names the setting `key`.
    """
    vocabulary = tokenizer.get_vocab()
    found = []
    for text in texts:
        ids = [vocabulary[text]] if text in vocabulary else tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise ConfigError(f"{key}: {text!r} is {len(ids)} tokens of the model's tokenizer; name single tokens")
        found.append(ids[0])
    return tuple(found)
