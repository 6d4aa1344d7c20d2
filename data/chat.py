r"""ChiMed-GPT's chat format, as token ids for training and as the chat template for serving.

A user's turn is `[human]:{question}\n[bot]:`, an assistant's turn is the answer and the end mark `</s>`, and the next
turn follows directly. A system turn, if any, comes first, on a line of its own. The role markers and the end mark are
single tokens, so that a turn's ids do not depend on its neighbours: encoding turn by turn, as here, and encoding the
template's rendering at once, as a server does, give the same ids, in training and in inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from data.tables import DataError

HUMAN: Final = "[human]:"
BOT: Final = "[bot]:"
END: Final = "</s>"
# Not to be typed by a user or a corpus: they would forge a turn.
RESERVED: Final = (HUMAN, BOT, END, "<s>", "<pad>", "<unk>")

# Jinja, with the same refusals as `check_messages`: a server that renders it answers 400 instead of forging turns.
CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{%- if message['content'] is not string or message['content'] | trim == '' -%}"
    "{{- raise_exception('a turn is empty or not text') -}}{%- endif -%}"
    f"{{%- for mark in {list(RESERVED)!r} -%}}{{%- if mark in message['content'] -%}}"
    "{{- raise_exception('a turn contains the reserved mark ' + mark) -}}{%- endif -%}{%- endfor -%}"
    "{%- if message['role'] == 'system' and loop.first -%}{{- message['content'] + '\\n' -}}"
    "{%- elif message['role'] == 'user' and (loop.first or loop.previtem['role'] != 'user') -%}"
    f"{{{{- '{HUMAN}' + message['content'] + '\\n{BOT}' -}}}}"
    "{%- elif message['role'] == 'assistant' and not loop.first and loop.previtem['role'] == 'user' -%}"
    f"{{{{- message['content'] + '{END}' -}}}}"
    "{%- else -%}{{- raise_exception('turns must alternate: [system,] user, assistant, user, ...') -}}{%- endif -%}"
    "{%- endfor -%}"
)


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a chat that the format cannot express.

    Raises:
        DataError: no turns, an unknown role, an empty turn, a reserved mark in a turn, or turns out of order: an
            optional system turn comes first, then user and assistant take turns, the user beginning.
    """
    if not messages:
        raise DataError("chat: no turns; begin with a user's turn")
    expected = "user"
    for index, message in enumerate(messages):
        where = f"chat: turn {index}"
        role, content = message["role"], message["content"]
        if role not in ("system", "user", "assistant"):
            raise DataError(f"{where}: unknown role '{role}'; use system, user or assistant")
        if not isinstance(content, str) or not content.strip():
            raise DataError(f"{where} ({role}): the content is empty or not text; give it text or drop the chat")
        for mark in RESERVED:
            if mark in content:
                raise DataError(f"{where} ({role}): contains the reserved mark '{mark}'; remove it from the text")
        if role == "system":
            if index:
                raise DataError(f"{where}: a system turn may only come first; move it or drop it")
            continue
        if role != expected:
            raise DataError(
                f"{where}: found the {role}'s turn where the {expected}'s must be; turns alternate, user first"
            )
        expected = "assistant" if role == "user" else "user"
    if messages[-1]["role"] == "system":
        raise DataError("chat: only a system turn; add a user's turn")


def render_turn(message: Mapping[str, Any]) -> str:
    """One turn as text, in the format of this module's head."""
    role, content = message["role"], message["content"]
    if role == "system":
        return f"{content}\n"
    if role == "user":
        return f"{HUMAN}{content}\n{BOT}"
    return f"{content}{END}"


def encode_chat(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], last_answer_only: bool = False
) -> tuple[list[int], list[int]]:
    """Encode a whole chat, turn by turn.

    Returns:
        `(ids, loss_mask)`, both of length T: the mask is 1 on every token of an assistant's turn, its end mark
        included, and 0 on all others; with `last_answer_only`, of the assistant's last turn.

    Raises:
        DataError: see `check_messages`.
    """
    check_messages(messages)
    ids: list[int] = []
    loss_mask: list[int] = []
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    learnt = answers[-1:] if last_answer_only else answers
    for index, message in enumerate(messages):
        turn = tokenizer.encode(render_turn(message), add_special_tokens=False, verbose=False)
        ids += turn
        loss_mask += [int(index in learnt)] * len(turn)
    return ids, loss_mask


def turns_within(tokenizer: Any, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> int:
    """How many turns from the chat's beginning fit into `max_tokens` whole, the last of them an assistant's; maybe 0."""
    size, fit = 0, 0
    for index, message in enumerate(messages, start=1):
        size += len(tokenizer.encode(render_turn(message), add_special_tokens=False, verbose=False))
        if size > max_tokens:
            break
        if message["role"] == "assistant":
            fit = index
    return fit


def encode_prompt(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Encode a chat that awaits an answer: its last turn is the user's, so its last token is `[bot]:`.

    Raises:
        DataError: see `check_messages`; or the last turn is not the user's.
    """
    if messages and messages[-1]["role"] == "assistant":
        raise DataError("prompt: the last turn is the assistant's; end a prompt with the user's turn")
    return encode_chat(tokenizer, messages)[0]
