"""Renders chats with a tokenizer's chat template, and tokenizes text with the position of each token."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.tables import DataError

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Tokens:
    """A text as T tokens."""

    ids: list[int]
    """(T,) token ids."""
    starts: list[int]
    """(T,) the character at which each token begins, nondecreasing."""

    def between(self, start: int, stop: int) -> range:
        """Returns the indices of the tokens that begin at characters `start` to `stop` - 1.

        A token that begins before `start` and extends over it is not included.
        """
        return range(bisect_left(self.starts, start), bisect_left(self.starts, stop))


def render(tokenizer: Any, messages: Messages, add_generation_prompt: bool = False, **arguments: Any) -> str:
    """Renders a chat as text.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        messages: the chat.
        add_generation_prompt: whether to append the generation prompt, which opens the assistant's turn.
        arguments: further variables of the template.

    Raises:
        DataError: the template rejects the chat; the message is the template's own.
    """
    import jinja2

    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt, **arguments
        )
    except (jinja2.TemplateError, TypeError) as error:
        raise DataError(f"the chat template refuses the chat: {error}") from error
    return text


def generation_blocks(tokenizer: Any, messages: Messages) -> list[tuple[int, int]]:
    """Returns the character ranges that the template marks with `{% generation %}`, in order."""
    from transformers.utils.chat_template_utils import render_jinja_template

    _, blocks = render_jinja_template(
        conversations=[list(messages)],
        chat_template=tokenizer.get_chat_template(),
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    found: list[tuple[int, int]] = blocks[0]
    return found


def tokenize(tokenizer: Any, text: str) -> Tokens:
    """Encodes a rendered chat without adding special tokens, because the template writes all of them itself."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    starts, reached = [], 0
    for start, stop in encoded["offset_mapping"]:
        # Offsets of some tokenizers leave out whitespace that is part of the token.
        starts.append(min(start, reached))
        reached = max(reached, stop)
    return Tokens(encoded["input_ids"], starts)
