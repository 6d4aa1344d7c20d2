"""Converts a record of any supported schema to a row of the requested table.

A record is recognized by its columns, first as a preference pair, then as a chat, then as text. A row of one kind can
become a row of another if nothing has to be invented: a chat can become text or prompts, but text never becomes a chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from data.chat import RESERVED, check_messages
from data.prepare.options import Options
from data.prepare.schemas.chats import ANSWERS, CHATS, DIALOGUES, MORE, QUESTIONS, TEXTS, chat_of, task_of
from data.prepare.schemas.chats import Row as Row
from data.prepare.schemas.columns import renamed
from data.prepare.schemas.mapping import mapped
from data.prepare.schemas.preferences import SIDES, preference_of
from data.prepare.schemas.turns import ROLE_KEYS, Messages
from data.prepare.schemas.values import UnknownColumnsError, kind_of, string
from data.tables import DataError

FIELDS: Final = (*QUESTIONS, *ANSWERS, *CHATS, *DIALOGUES, *TEXTS, *SIDES[0], *SIDES[1], *MORE)
"""The fields that `--map` accepts."""

_CHIP: Final = "|||"
_CHINESE: Final[Mapping[str, Sequence[str]]] = {
    "question": ("问题", "提问", "问", "患者提问", "患者问题", "病人提问", "咨询", "咨询内容", "病情描述", "主诉"),
    "answer": ("回答", "答", "答案", "答复", "回复", "医生回答", "医生回复", "医生答复", "参考答案"),
    "text": ("文本", "正文", "内容", "文章"),
}
"""Chinese column names that a message suggests for a field. They are not assumed: only the user knows what they hold."""


def row_of(record: Any, options: Options) -> Row:
    """Returns the row that a record becomes, in the columns of `options.schema`.

    Raises:
        DataError: no schema fits, a value is missing or of a wrong type, or the row cannot become one of the requested
            kind; the message contains only the reason.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"holds {kind_of(record)}, not a record with named columns")
    record = mapped(record, options.columns)
    row = preference_of(record, options) or chat_of(record, options) or _text(renamed(record))
    columns = ", ".join(map(str, record)) or "none"
    if options.kind != "text" and (row is None or "text" in row) and any(name in record for name in ROLE_KEYS):
        raise DataError(f"is one turn (columns {columns}); join the turns of a dialogue with --dialogue-id COLUMN")
    if row is None and (
        missing := [item for item in options.columns if item[1] not in record and item[0] not in record]
    ):
        field, column = missing[0]
        raise DataError(
            f"no known schema has its columns ({columns}), and it has no column '{column}', which --map gives to {field}"
        )
    if row is None:
        raise UnknownColumnsError(
            f"no known schema has its columns ({columns})",
            f"name them with --map FIELD=COLUMN, as {_mapping(record)}",
        )
    return _as_kind(row, options.kind, columns)


def _mapping(record: Mapping[str, Any]) -> str:
    """Returns the `--map` options that name the record's columns, or what such options look like."""
    columns = {field: next((name for name in record if name in names), None) for field, names in _CHINESE.items()}
    options = [f"--map {field}={column}" for field, column in columns.items() if column]
    return " ".join(options) or "--map question=COLUMN --map answer=COLUMN"


def id_of(record: Any) -> str:
    """Returns a record's `id`; empty if it has none."""
    value = record.get("id") if isinstance(record, Mapping) else None
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def texts_of(row: Row) -> list[str]:
    """Returns all texts of a row: those of its turns in order, then `chosen` and `rejected`; or its `text`."""
    if "text" in row:
        return [row["text"]]
    turns = [turn["content"] for name in ("messages", "prompt") for turn in row.get(name, ())]
    return [*turns, *(row[name] for name in ("chosen", "rejected") if name in row)]


def with_texts(row: Row, texts: Sequence[str]) -> Row:
    """Returns a copy of the row with its texts replaced by `texts`, in the order of `texts_of`."""
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
    """Rejects a row that the trainers would reject or misread.

    Raises:
        DataError: a text is empty, contains a reserved mark, or cannot be encoded in UTF-8; turns are out of order; or
            the chosen and the rejected answer are equal.
    """
    texts = texts_of(row)
    try:
        for text in texts:
            text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError("contains an unpaired surrogate, which is not a character") from error
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


def _text(record: Mapping[str, Any]) -> Row | None:
    name = next((name for name in TEXTS if name in record), None)
    if name is None:
        return None
    text = string(record[name], name)
    if _CHIP in text:
        raise DataError(
            f"{name} has fields separated by {_CHIP}, as CHIP's files do; convert it to columns or JSON lines"
        )
    return {"text": text}


def _as_kind(row: Row, kind: str, columns: str) -> Row:
    if kind == "text":
        return (
            {"text": "\n".join(texts_of(row))} if "chosen" not in row else _refused("a preference pair", kind, columns)
        )
    if kind == "preference":
        return (
            row
            if "chosen" in row
            else _refused("a text" if "text" in row else "a chat without a rejected answer", kind, columns)
        )
    if "text" in row:
        return _refused("a text", kind, columns)
    turns: Messages = row["prompt"] if "prompt" in row else row["messages"]
    if kind == "prompts":
        last = max((index for index, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
        return {"prompt": turns[: last + 1]}
    if "chosen" in row:
        turns = [*turns, {"role": "assistant", "content": row["chosen"]}]
    if not any(turn["role"] == "assistant" for turn in turns):
        raise UnknownColumnsError(
            f"the chat has no answer to train on (columns {columns})", "name it with --map answer=COLUMN"
        )
    return {"messages": turns, "task": row.get("task") or task_of(turns)}


def _refused(what: str, kind: str, columns: str) -> Row:
    raise UnknownColumnsError(
        f"is {what}, which cannot become a row of --kind {kind} (columns {columns})",
        "name those that are meant with --map FIELD=COLUMN",
    )
