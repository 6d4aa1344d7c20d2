"""Reads the turns of a conversation from every supported form of a column.

Turns are `{"role": "system" | "user" | "assistant", "content": text}`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from data.prepare.schemas.values import kind_of, string
from data.tables import DataError

Messages = list[dict[str, str]]

_USERS: Final = (
    "user",
    "human",
    "patient",
    "患者",
    "病人",
    "用户",
    "家属",
    "咨询者",
    "提问者",
    "人类",
    "问",
    "患",
    "病患",
    "prompter",
)
_ASSISTANTS: Final = ("assistant", "gpt", "bot", "chatgpt", "model", "doctor", "医生", "大夫", "医师", "专家", "助手", "助理", "客服", "机器人", "答", "医")  # fmt: skip
ROLES: Final = {
    **dict.fromkeys(("system", "系统"), "system"),
    **dict.fromkeys(_USERS, "user"),
    **dict.fromkeys(_ASSISTANTS, "assistant"),
}
ROLE_KEYS: Final = ("role", "from", "speaker", "角色")
_TEXT_KEYS: Final = ("content", "value", "text", "utterance", "sentence", "内容")
_ASKED: Final = ("input", "question", "query", "prompt", "instruction", "q", *_USERS)
_ANSWERED: Final = ("output", "answer", "response", "completion", "reply", "a", *_ASSISTANTS)
"""Columns of an exchange, a question with its answer, which is two turns."""
_TOOL_ROLES: Final = (
    "tool",
    "function",
    "function_call",
    "observation",
    "tool_call",
    "tool_response",
    "function_response",
)
_OF_TURNS: Final = re.compile("qa|turn|dialog|conv|chat|round|message|问答|对话|历史", re.IGNORECASE)
_SPEAKERS: Final = sorted((name for name, role in ROLES.items() if role != "system"), key=len, reverse=True)
_SPOKEN: Final = re.compile(rf"\s*({'|'.join(_SPEAKERS)})\s*[:：]\s*(.*)", re.DOTALL | re.IGNORECASE)
_TRANSCRIPT: Final = re.compile(r"(?:^|\n\s*\n)\s*(Human|Assistant)\s*:\s?")
_LINE: Final = re.compile(rf"(?:^|\n)\s*({'|'.join(_SPEAKERS)})\s*[:：]", re.IGNORECASE)
_SPACED: Final = re.compile(rf"(?:^|\s)({'|'.join(name for name in _SPEAKERS if not name.isascii())})[:：]")


def turns_of(value: Any, name: str) -> Messages:
    """Returns the turns of a column.

    The value is a list of objects with role and text, a list of objects with a question and its answer, a list of
    alternating texts, or a transcript.

    Raises:
        DataError: the value has another form, or a role is unknown.
    """
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return _of_texts(value, name)
    if isinstance(value, str) and len(said := _spoken(value)) > 1:
        return said
    if not isinstance(value, list):
        raise DataError(f"{name} holds {kind_of(value)}; it must be a list of turns")
    turns: Messages = []
    for index, turn in enumerate(value):
        where = f"{name}[{index}]"
        if not isinstance(turn, Mapping):
            raise DataError(f"{where} holds {kind_of(turn)}; it must be a turn with a role and its text")
        turns += _of_object({str(key).strip().lower(): one for key, one in turn.items()}, where)
    return turns


def are_turns(value: Any, name: str = "") -> bool:
    """Returns whether a value is a list of objects that all have a speaker and a text, or a question and its answer.

    A list of questions with answers may also be a list of separate records. It counts as turns only if the `name` of
    its column suggests turns, such as `dialog`.
    """
    if not isinstance(value, list) or not value or not all(isinstance(turn, Mapping) for turn in value):
        return False
    turns = [{str(key).strip().lower(): one for key, one in turn.items()} for turn in value]
    if all(_speaker_key(turn) and _key(turn, _TEXT_KEYS) for turn in turns):
        return True
    return bool(_OF_TURNS.search(name)) and all(_key(turn, _ASKED) and _key(turn, _ANSWERED) for turn in turns)


def transcript_of(text: str) -> Messages | None:
    """Returns the turns of a text of `Human:` and `Assistant:` paragraphs, as in HH; None if it begins otherwise."""
    marks = list(_TRANSCRIPT.finditer(text))
    if not marks or text[: marks[0].start()].strip() or marks[0][1] != "Human":
        return None
    return _cut(text, marks)


def spoken_turns(text: str, answer: Any) -> Messages | None:
    """Returns the turns before an answer in a text of lines such as 病人：…, as in BianQue; None for other texts.

    A last, empty turn for the answer is left out. The text is not such a transcript if it does not begin with a
    speaker, if it has only one turn and the answer has no speaker, or if its last turn is the assistant's and has text,
    so that the question is about the dialogue rather than a part of it.
    """
    turns = _spoken(text)
    if not turns:
        return None
    if len(turns) > 1 and turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        return turns[:-1]
    if turns[-1]["role"] == "assistant" or (len(turns) == 1 and without_speaker(str(answer)) == str(answer)):
        return None
    return turns


def _spoken(text: str) -> Messages:
    """Returns the turns of a text that begins with a speaker's name and a colon, one per line or paragraph.

    Returns an empty list for any other text.
    """
    if not (first := _LINE.match(text)):
        return []
    turns = transcript_of(text) or []
    if len(turns) > 1:
        return turns
    pattern = _SPACED if "\n" not in text.strip() and not first[1].isascii() else _LINE
    return merged(_cut(text, list(pattern.finditer(text))))


def without_speaker(text: str) -> str:
    """Returns an answer without a leading name of the assistant; unchanged if it has none."""
    mark = _LINE.match(text)
    return text[mark.end() :].strip() if mark and ROLES[mark[1].lower()] == "assistant" else text


def _cut(text: str, marks: Sequence[re.Match[str]]) -> Messages:
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        {"role": ROLES[mark[1].lower()], "content": text[mark.end() : end].strip()}
        for mark, end in zip(marks, ends, strict=True)
    ]


def merged(turns: Sequence[dict[str, str]]) -> Messages:
    """Merges consecutive turns of one speaker into one turn, with one line for each."""
    found: Messages = []
    for turn in turns:
        if found and found[-1]["role"] == turn["role"]:
            found[-1] = {**turn, "content": f"{found[-1]['content']}\n{turn['content']}"}
        else:
            found.append(dict(turn))
    return found


def _key(names: Collection[str], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in names), None)


def _speaker_key(turn: Mapping[str, Any]) -> str | None:
    return _key(turn, ROLE_KEYS) or ("id" if _role(turn.get("id")) else None)  # as in MedDG


def _of_object(turn: Mapping[str, Any], where: str) -> Messages:
    """Returns the turn of an object with a role and a text, or the two turns of an exchange."""
    named = _speaker_key(turn)
    asked, answered = _key(turn, _ASKED), _key(turn, _ANSWERED)
    if named is None and asked and answered:
        return _of_exchange(turn, asked, answered, where)
    given = None if named is None else turn[named]
    if turn.get("tool_calls") or turn.get("function_call") or str(given).strip().lower() in _TOOL_ROLES:
        raise DataError(
            f"{where}: the role is {given!r}, with a tool call or tool result, which is not supported; leave such chats out"
        )
    role = _role(given)
    if role is None:
        if named is None:
            raise DataError(f"{where} has {', '.join(turn)} but no role; name the speaker in role, from or speaker")
        raise DataError(f"{where}: the role is {given!r}; use one of {', '.join(ROLES)}")
    text = _key(turn, _TEXT_KEYS)
    return [{"role": role, "content": string(None if text is None else turn[text], where)}]


def _role(given: Any) -> str | None:
    """Returns the role that a speaker's name, which may be in the plural, stands for; None if the name is unknown."""
    name = given.strip().lower() if isinstance(given, str) else ""
    return ROLES.get(name) or ROLES.get(name.removesuffix("s"))


def _of_exchange(turn: Mapping[str, Any], asked: str, answered: str, where: str) -> Messages:
    """Returns a question and its answer, preceded by the `system` text, as in XTuner's data, without blank texts."""
    given = [("system", turn.get("system")), ("user", turn[asked]), ("assistant", turn[answered])]
    texts = [(role, "" if value is None else string(value, where)) for role, value in given]
    return [{"role": role, "content": text} for role, text in texts if text.strip()]


def _of_texts(texts: Sequence[str], name: str) -> Messages:
    """Returns the turns of texts that each begin with their speaker (`患者：...`), or else alternate, user first."""
    spoken = [_SPOKEN.fullmatch(text) for text in texts]
    if all(spoken):
        return merged([{"role": ROLES[one[1].lower()], "content": one[2].strip()} for one in spoken if one])
    if any(spoken[:2]):
        index = spoken.index(None)
        raise DataError(f"{name}[{index}] has no speaker prefix, unlike other turns; add one, such as 患者： or 医生：")
    if len(texts) < 2:
        raise DataError(f"{name} holds one text; a list of texts must be a question, its answer, and so on")
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
