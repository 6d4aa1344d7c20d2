"""Converts a record in any layout of a conversation, a question with its answer, or an exam question to a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from data.choices.question import ChoiceQuestion
from data.choices.reader import asks_in_words, context_of, key_column, read_choice
from data.prepare.options import Options
from data.prepare.schemas.columns import renamed
from data.prepare.schemas.turns import Messages, are_turns, merged, spoken_turns, turns_of, without_speaker
from data.prepare.schemas.values import UnknownColumnsError, kind_of, optional_string, string
from data.tables import DataError

Row = dict[str, Any]

QUESTIONS: Final = ("instruction", "instruct", "question", "query", "prompt")
_INSTRUCTIONS: Final = ("instruction", "instruct", "prompt")
"""Columns of questions that precede the text that they are about; questions in other columns follow it."""
ASKED: Final = ("title", "ask")
"""The two columns of a question's title and its text."""
ANSWERS: Final = ("output", "answer", "response", "completion", "target")
CHATS: Final = ("messages", "conversations", "conversation", "data")
DIALOGUES: Final = ("dialogue", "dialog", "utterances", "dialogue_turns")
"""Conversations of people, in which one person may speak several times in a row."""
TEXTS: Final = ("text", "content")
MORE: Final = ("input", "context", "history", "system", "margin", "options", "explanation", "label")
_ABOUT: Final = ("description", "case")
_LABELS: Final = ("label", "kto_tag", "desirable")


def chat_of(record: Mapping[str, Any], options: Options, answered: bool = True) -> Row | None:
    """Returns the chat of a record, `{"messages", "task"}`, or None if the record holds none.

    Args:
        record: the record.
        options: the options of the preparation.
        answered: whether the chat includes its answer.

    Raises:
        DataError: a value has a wrong type, a role is unknown, or options cannot be read.
    """
    named = renamed(record)
    found = (
        _conversation(named)
        or _exam_question(record, options, answered)  # reads the original names of exams' columns
        or _exchange(named, answered)
        or _unnamed_conversation(named)
    )
    if found is not None and answered and options.kind == "chat":
        _refuse_bad_example(named)
    return found


def task_of(turns: Messages) -> str:
    """Returns the task of a chat: `qa` if it has exactly one turn of the user, otherwise `dialogue`."""
    return "qa" if sum(turn["role"] == "user" for turn in turns) == 1 else "dialogue"


def is_chat(value: Any) -> bool:
    """Returns whether a value is a list of objects, which may be turns."""
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


def _unnamed_conversation(record: Mapping[str, Any]) -> Row | None:
    """Returns the only list of turns in a record, in any column, preceded by the text that it is about.

    An example is a case of CMB-Clin.
    """
    names = [name for name, value in record.items() if are_turns(value, str(name))]
    if len(names) != 1:
        return None
    turns = turns_of(record[names[0]], names[0])
    about = [context_of(record), *(optional_string(record, name).strip() for name in _ABOUT)]
    if turns and turns[0]["role"] == "user":
        turns[0]["content"] = "\n".join(filter(None, [*about, turns[0]["content"]]))
    return _with_system(record, turns)


def _with_system(record: Mapping[str, Any], turns: Messages) -> Row:
    system = optional_string(record, "system")
    if system and turns and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": system}, *turns]
    return {"messages": turns, "task": task_of(turns)}


def _zipped(value: Any) -> Any:
    """Converts an object of equally long lists, such as MedDialog's turns in Parquet, to a list of objects."""
    columns = list(value.values()) if isinstance(value, Mapping) else []
    if columns and all(isinstance(one, list) for one in columns) and len({len(one) for one in columns}) == 1:
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return value


def _exam_question(record: Mapping[str, Any], options: Options, answered: bool) -> Row | None:
    """Returns the chat of a question with lettered options; None if the record is not such a question.

    The answer consists of the letters and texts of the correct options, followed by the explanation.
    """
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
    """Returns a question with its answer, after earlier turns from `history` or a question that is a transcript."""
    question = next((name for name in QUESTIONS if name in record), None)
    answer = next((name for name in ANSWERS if name in record), None)
    spoken = False
    if question is not None and is_chat(record[question]) and (not answered or len(record[question]) > 1):
        turns = turns_of(record[question], question)
    else:
        if answered and answer is None and any(name in record for name in TEXTS):
            return None
        parts = _asked(record, question, answer)
        if parts is None:
            return None
        *before, last = list(filter(None, parts)) or [""]
        said = spoken_turns(last, record[answer] if answer else None)
        spoken = said is not None
        turns = said or [{"role": "user", "content": last}]
        turns[0]["content"] = "\n".join([*before, turns[0]["content"]])
        turns = [*_history(record), *turns]
    if (system := optional_string(record, "system")) and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system})
    if answered and answer is not None:
        text = string(record[answer], answer)
        turns.append({"role": "assistant", "content": without_speaker(text) if spoken else text})
    return {"messages": turns, "task": task_of(turns)}


def _asked(record: Mapping[str, Any], question: str | None, answer: str | None) -> list[str] | None:
    """Returns the parts of a record's question, from one column or several; None if the record has no question."""
    context = context_of(record) if "context" in record else ""
    if question is not None:
        asked = string(record[question], question)
        before = question in _INSTRUCTIONS
        return [*([asked, context] if before else [context, asked]), optional_string(record, "input")]
    if "input" in record and answer is not None:
        return [context, string(record["input"], "input")]
    if all(name in record for name in ASKED):
        title, text = (optional_string(record, name).strip() for name in ASKED)
        return [text] if text.startswith(title) else [title, "" if text == "无" else text]
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
    """Rejects a record whose label marks the answer as bad, as in KTO's data, because SFT would train on it."""
    for name in _LABELS:
        if record.get(name) is False or str(record.get(name)).strip().lower() == "false":
            raise DataError(f"{name} is false: the answer is marked as bad; drop the row, or use --kind prompts")
