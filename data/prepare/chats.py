"""A record in any layout of a conversation, a question with its answer, or an exam's question → a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from data.choices.question import ChoiceQuestion
from data.choices.reader import asks_in_words, key_column, read_choice
from data.prepare.options import Options
from data.prepare.turns import Messages, merged, turns_of
from data.prepare.values import UnknownColumnsError, kind_of, optional_string, string
from data.tables import DataError

Row = dict[str, Any]

QUESTIONS: Final = ("instruction", "instruct", "question", "query", "prompt")
ASKED: Final = ("title", "ask")
"""A question's headline and its text in two columns."""
ANSWERS: Final = ("output", "answer", "response", "completion", "target")
CHATS: Final = ("messages", "conversations", "conversation", "data")
DIALOGUES: Final = ("dialogue", "dialog", "utterances", "dialogue_turns")
"""Conversations of people, in which one may speak several times in a row."""
TEXTS: Final = ("text", "content")
MORE: Final = ("input", "history", "system", "margin", "options", "explanation", "label")
_LABELS: Final = ("label", "kto_tag", "desirable")


def chat_of(record: Mapping[str, Any], options: Options, answered: bool = True) -> Row | None:
    """The chat of a record, `{"messages", "task"}`, without its answer where none is `answered`; None if it holds none.

    Raises:
        DataError: a value is of a wrong type, a role is unknown, options cannot be read.
    """
    found = _conversation(record) or _exam_question(record, options, answered) or _exchange(record, answered)
    if found is not None and answered and options.kind == "chat":
        _refuse_bad_example(record)
    return found


def task_of(turns: Messages) -> str:
    """`qa` of one question, else `dialogue`."""
    return "qa" if sum(turn["role"] == "user" for turn in turns) == 1 else "dialogue"


def is_chat(value: Any) -> bool:
    """Whether a value is a list of objects, which may be turns."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _conversation(record: Mapping[str, Any]) -> Row | None:
    for name in CHATS:
        if name in record and (name != "data" or isinstance(record[name], list)):
            turns = turns_of(record[name], name)
            return _with_system(record, turns)
    for name in DIALOGUES:
        if name in record:
            turns = turns_of(_zipped(record[name]), name)
            if report := optional_string(record, "self_report").strip():
                turns.insert(0, {"role": "user", "content": report})
            return _with_system(record, merged(turns))
    return None


def _with_system(record: Mapping[str, Any], turns: Messages) -> Row:
    system = optional_string(record, "system")
    if system and turns and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": system}, *turns]
    return {"messages": turns, "task": task_of(turns)}


def _zipped(value: Any) -> Any:
    """A list of objects of an object of equally long lists, which is how Parquet has MedDialog's turns."""
    columns = list(value.values()) if isinstance(value, Mapping) else []
    if columns and all(isinstance(one, list) for one in columns) and len({len(one) for one in columns}) == 1:
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return value


def _exam_question(record: Mapping[str, Any], options: Options, answered: bool) -> Row | None:
    """A question with lettered options; the answer is the right options' letters and texts, then the explanation."""
    if any(field in TEXTS for field, _ in options.columns) or asks_in_words(record):
        return None
    choice = read_choice(record, options.first_option)
    if choice is None:
        return None
    turns: Messages = [{"role": "user", "content": choice.asked}]
    if system := optional_string(record, "system"):
        turns.insert(0, {"role": "system", "content": system})
    if answered and options.kind != "prompts":
        turns.append({"role": "assistant", "content": _answer(choice, record)})
    return {"messages": turns, "task": "choice"}


def _answer(choice: ChoiceQuestion, record: Mapping[str, Any]) -> str:
    if not choice.answers:
        key, columns = key_column(record), ", ".join(map(str, record))
        if key:
            raise DataError(f"{key} holds nothing; it must name one or more of the options")
        raise UnknownColumnsError(
            f"no known schema has its columns ({columns}): there are options but no answer",
            "name it with --map answer=COLUMN",
        )
    return "\n".join([*map(choice.lettered, choice.answers), *([choice.explanation] if choice.explanation else [])])


def _exchange(record: Mapping[str, Any], answered: bool) -> Row | None:
    """A question with its answer, and what was said before in `history`."""
    question = next((name for name in QUESTIONS if name in record), None)
    if question is not None and not answered and is_chat(record[question]):
        return {"messages": turns_of(record[question], question), "task": ""}
    answer = next((name for name in ANSWERS if name in record), None)
    if answered and answer is None and any(name in record for name in TEXTS):
        return None
    asked = _question(record, question, answer)
    if asked is None:
        return None
    turns = [{"role": "system", "content": system}] if (system := optional_string(record, "system")) else []
    turns += _history(record)
    turns.append({"role": "user", "content": asked})
    if answered and answer is not None:
        turns.append({"role": "assistant", "content": string(record[answer], answer)})
    return {"messages": turns, "task": task_of(turns)}


def _question(record: Mapping[str, Any], question: str | None, answer: str | None) -> str | None:
    """What is asked, in one column or two; None if the record asks nothing."""
    if question is not None:
        return "\n".join(filter(None, (string(record[question], question), optional_string(record, "input"))))
    if "input" in record and answer is not None:
        return string(record["input"], "input")
    if all(name in record for name in ASKED):
        title, text = (optional_string(record, name).strip() for name in ASKED)
        return text if text.startswith(title) else "\n".join(filter(None, (title, "" if text == "无" else text)))
    return None


def _history(record: Mapping[str, Any]) -> Messages:
    turns: Messages = []
    history = record.get("history") or ()
    if not isinstance(history, list | tuple):
        raise DataError(f"history holds {kind_of(history)}; it must be a list of questions and their answers")
    if is_chat(history):
        return turns_of(history, "history")
    for index, pair in enumerate(history):
        where = f"history[{index}]"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(f"{where} holds {kind_of(pair)}; it must be a question and its answer")
        turns.append({"role": "user", "content": string(pair[0], where)})
        turns.append({"role": "assistant", "content": string(pair[1], where)})
    return turns


def _refuse_bad_example(record: Mapping[str, Any]) -> None:
    """Refuse an answer that its label says is a bad one, as half of KTO's are: SFT would train on it."""
    for name in _LABELS:
        if record.get(name) is False or str(record.get(name)).strip().lower() == "false":
            raise DataError(
                f"{name} is false: the answer is an example of a bad one; drop the row, or use --kind prompts"
            )
