"""A record of any schema in use → a row of the table that was asked for.

A record is recognised by its columns, first as a preference, then as a chat, then as text. Rows of one kind become rows
of another where nothing has to be made up: a chat may be read as text, and as prompts; text never becomes a chat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from data.chat import RESERVED, check_messages
from data.prepare.options import Options
from data.tables import DataError

Row = dict[str, Any]
Messages = list[dict[str, str]]

ROLES: Final = {
    "system": "system",
    "user": "user",
    "human": "user",
    "patient": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "doctor": "assistant",
}
QUESTIONS: Final = ("instruction", "instruct", "question", "query", "prompt")
ANSWERS: Final = ("output", "answer", "response", "completion")
CHATS: Final = ("messages", "conversations", "conversation")
TEXTS: Final = ("text", "content")
SIDES: Final = (("chosen", "rejected"), ("response_chosen", "response_rejected"))
SCORES: Final = ("score_chosen", "score_rejected")
CHOICE: Final = ("Question", "A", "B", "C", "D", "Answer")
MORE: Final = ("input", "history", "system", "margin", "id")
FIELDS: Final = (*QUESTIONS, *ANSWERS, *CHATS, *TEXTS, *SIDES[0], *SIDES[1], *MORE)
"""What `--map` may name."""


def row_of(record: Any, options: Options) -> Row:
    """The row that a record becomes, in the columns of `options.schema`.

    Raises:
        DataError: no schema fits, a value is missing, empty or of a wrong type, a chat is not one, or the answers of a
            pair are equal; the text is the reason alone.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"holds {_kind(record)}, not a record with named columns")
    record = _mapped(record, options.columns)
    row = _preference(record) or _chat(record) or _text(record)
    if row is None:
        columns = ", ".join(map(str, record)) or "none"
        raise DataError(f"no known schema has its columns ({columns}); name them with --map field=column")
    return _as_kind(row, options.kind)


def id_of(record: Any, options: Options) -> str:
    """A record's own name for itself, its `id`; empty if it has none."""
    value = record.get(dict(options.columns).get("id", "id")) if isinstance(record, Mapping) else None
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def texts_of(row: Row) -> list[str]:
    """Every text of a row, in order."""
    if "text" in row:
        return [row["text"]]
    turns = [turn["content"] for name in ("messages", "prompt") for turn in row.get(name, ())]
    return [*turns, *(row[name] for name in ("chosen", "rejected") if name in row)]


def with_texts(row: Row, texts: Sequence[str]) -> Row:
    """The row with other texts, given in the order of `texts_of`."""
    rest = iter(texts)
    new = dict(row)
    for name in ("messages", "prompt"):
        if name in row:
            new[name] = [{"role": turn["role"], "content": next(rest)} for turn in row[name]]
    for name in ("text", "chosen", "rejected"):
        if name in row:
            new[name] = next(rest)
    return new


def check_row(row: Row) -> None:
    """Refuse what the stages would refuse, or read wrongly, later.

    Raises:
        DataError: an empty text, a reserved mark, turns out of order, equal answers, or what UTF-8 cannot hold.
    """
    texts = texts_of(row)
    try:
        for text in texts:
            text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError("holds half a surrogate pair, which is no character") from error
    for chat in (row[name] for name in ("messages", "prompt") if name in row):
        check_messages(chat)
    for name in ("text", "chosen", "rejected"):
        if name in row:
            if not row[name].strip():
                raise DataError(f"{name} is empty")
            for mark in RESERVED:
                if mark in row[name]:
                    raise DataError(f"{name} contains the reserved mark '{mark}'")
    if "chosen" in row and row["chosen"] == row["rejected"]:
        raise DataError("chosen and rejected are the same text")


def _mapped(record: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    if not columns:
        return record
    taken = {column for _, column in columns}
    new = {name: value for name, value in record.items() if name not in taken}
    for name, column in columns:
        if column not in record:
            raise DataError(f"has no column '{column}', which --map gives to {name}")
        new[name] = record[column]
    return new


def _preference(record: Mapping[str, Any]) -> Row | None:
    for better, worse in SIDES:
        if better in record and worse in record:
            break
    else:
        return None
    chosen, rejected = record[better], record[worse]
    if _is_chat(chosen) and _is_chat(rejected):
        first, second = _messages(chosen, better), _messages(rejected, worse)
        if first[:-1] != second[:-1]:
            raise DataError(f"{better} and {worse} are chats that differ before their last turns: no common prompt")
        if len(first) > 1:
            return _pair(record, first[:-1], first[-1]["content"], second[-1]["content"])
        chosen, rejected = first[-1]["content"], second[-1]["content"]
    prompt = _chat({name: value for name, value in record.items() if name not in (better, worse)}, answered=False)
    if prompt is None:
        raise DataError(f"has {better} and {worse} but no prompt: no prompt, question, instruction or conversations")
    return _pair(record, prompt["messages"], _string(chosen, better), _string(rejected, worse))


def _pair(record: Mapping[str, Any], prompt: Messages, chosen: str, rejected: str) -> Row:
    if not prompt or prompt[-1]["role"] != "user":
        raise DataError("the prompt does not end with a user's turn")
    flaw, margin = _optional(record, "flaw"), _margin(record)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "flaw": flaw, "margin": margin}


def _margin(record: Mapping[str, Any]) -> float:
    """By how much the chosen answer is the better one: said so, or the difference of two scores; 0 where nobody says."""
    if record.get("margin") is not None:
        margin = _number(record["margin"], "margin")
    elif all(record.get(name) is not None for name in SCORES):
        margin = _number(record[SCORES[0]], SCORES[0]) - _number(record[SCORES[1]], SCORES[1])
    else:
        return 0.0
    if margin < 0:
        raise DataError(f"the chosen answer's margin is {margin:g}: the rejected one is the better")
    return margin


def _chat(record: Mapping[str, Any], answered: bool = True) -> Row | None:
    """A chat in any spelling; without an answer where none is `answered`."""
    for name in CHATS:
        if name in record:
            turns = _messages(record[name], name)
            system = _optional(record, "system")
            if system and turns and turns[0]["role"] != "system":
                turns.insert(0, {"role": "system", "content": system})
            return {"messages": turns, "task": _task(turns)}
    if all(name in record for name in CHOICE):
        return _choice(record)
    question = next((name for name in QUESTIONS if name in record), None)
    if question is None:
        return None
    if not answered and _is_chat(record[question]):
        return {"messages": _messages(record[question], question), "task": ""}
    answer = next((name for name in ANSWERS if name in record), None)
    if answered and answer is None and any(name in record for name in TEXTS):
        return None
    said = "\n".join(filter(None, (_string(record[question], question), _optional(record, "input"))))
    turns = [{"role": "system", "content": system}] if (system := _optional(record, "system")) else []
    for index, pair in enumerate(record.get("history") or ()):
        where = f"history[{index}]"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(f"{where} holds {_kind(pair)}; it must be a question and its answer")
        turns.append({"role": "user", "content": _string(pair[0], where)})
        turns.append({"role": "assistant", "content": _string(pair[1], where)})
    turns.append({"role": "user", "content": said})
    if answered and answer is not None:
        turns.append({"role": "assistant", "content": _string(record[answer], answer)})
    return {"messages": turns, "task": _task(turns)}


def _choice(record: Mapping[str, Any]) -> Row:
    """A question with four options, as an exam has it; the answer is the right option's letter and text."""
    options = {letter: _string(record[letter], letter) for letter in "ABCD"}
    letter = _string(record["Answer"], "Answer").strip()
    if letter not in options:
        raise DataError(f"the answer is {letter!r}; it must be one of the options A, B, C, D")
    asked = "\n".join([_string(record["Question"], "Question"), *(f"{key}. {text}" for key, text in options.items())])
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": f"{letter}. {options[letter]}"}]
    return {"messages": turns, "task": "choice"}


def _text(record: Mapping[str, Any]) -> Row | None:
    name = next((name for name in TEXTS if name in record), None)
    return None if name is None else {"text": _string(record[name], name)}


def _as_kind(row: Row, kind: str) -> Row:
    if kind == "text":
        return {"text": "\n".join(texts_of(row))} if "chosen" not in row else _refused("a preference pair", kind)
    if kind == "preference":
        return (
            row
            if "chosen" in row
            else _refused("a text" if "text" in row else "a chat without a rejected answer", kind)
        )
    if "text" in row:
        return _refused("a text", kind)
    turns: Messages = row["prompt"] if "prompt" in row else row["messages"]
    if kind == "prompts":
        last = max((index for index, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
        return {"prompt": turns[: last + 1]}
    if "chosen" in row:
        turns = [*turns, {"role": "assistant", "content": row["chosen"]}]
    if not any(turn["role"] == "assistant" for turn in turns):
        raise DataError("the chat has no answer to learn from")
    return {"messages": turns, "task": row.get("task") or _task(turns)}


def _refused(what: str, kind: str) -> Row:
    raise DataError(f"is {what}, which cannot become a row of --kind {kind}")


def _messages(value: Any, name: str) -> Messages:
    if not isinstance(value, list):
        raise DataError(f"{name} holds {_kind(value)}; it must be a list of turns")
    turns = []
    for index, turn in enumerate(value):
        where = f"{name}[{index}]"
        if not isinstance(turn, Mapping):
            raise DataError(f"{where} holds {_kind(turn)}; it must be a turn with a role and its text")
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if not isinstance(role, str) or role.lower() not in ROLES:
            raise DataError(f"{where}: the role is {role!r}; known are {', '.join(ROLES)}")
        turns.append({"role": ROLES[role.lower()], "content": _string(content, where)})
    return turns


def _task(turns: Messages) -> str:
    return "qa" if sum(turn["role"] == "user" for turn in turns) == 1 else "dialogue"


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _optional(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return "" if value is None else _string(value, name)


def _number(value: Any, name: str) -> float:
    """A finite number, which may be written as a text, as in csv."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{name} holds {value!r}; it must be a number")
    return found


def _string(value: Any, name: str) -> str:
    """A text, which may stand in a list of its own or in a single turn."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping) and isinstance(value.get("value", value.get("content")), str):
        value = value.get("value", value.get("content"))
    if not isinstance(value, str):
        raise DataError(f"{name} holds {_kind(value)}; it must be a text")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    names = {
        type(None): "nothing",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
