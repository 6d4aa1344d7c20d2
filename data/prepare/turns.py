"""The turns of a conversation, from every way in which a column holds one.

Turns are `{"role": "system" | "user" | "assistant", "content": text}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from data.prepare.values import kind_of, string
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
)
_ASSISTANTS: Final = ("assistant", "gpt", "bot", "chatgpt", "model", "doctor", "医生", "大夫", "医师", "专家", "助手", "助理", "客服", "机器人", "答", "医")  # fmt: skip
ROLES: Final = {
    **dict.fromkeys(("system", "系统"), "system"),
    **dict.fromkeys(_USERS, "user"),
    **dict.fromkeys(_ASSISTANTS, "assistant"),
}
ROLE_KEYS: Final = ("role", "from", "speaker", "角色")
_TEXT_KEYS: Final = ("content", "value", "text", "utterance", "sentence", "内容")
_SPEAKERS: Final = sorted((name for name, role in ROLES.items() if role != "system"), key=len, reverse=True)
_SPOKEN: Final = re.compile(rf"\s*({'|'.join(_SPEAKERS)})\s*[:：]\s*(.*)", re.DOTALL | re.IGNORECASE)
_TRANSCRIPT: Final = re.compile(r"(?:^|\n\s*\n)\s*(Human|Assistant)\s*:\s?")


def turns_of(value: Any, name: str) -> Messages:
    """The turns of a list of objects with role and text, of objects with `input` and `output`, or of texts in turn.

    Raises:
        DataError: it is no such list, or a role is unknown.
    """
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return _of_texts(value, name)
    if not isinstance(value, list):
        raise DataError(f"{name} holds {kind_of(value)}; it must be a list of turns")
    turns: Messages = []
    for index, turn in enumerate(value):
        where = f"{name}[{index}]"
        if not isinstance(turn, Mapping):
            raise DataError(f"{where} holds {kind_of(turn)}; it must be a turn with a role and its text")
        if not any(key in turn for key in ROLE_KEYS) and {"input", "output"} <= set(turn):
            turns += _of_exchange(turn, where)
            continue
        role = _first(turn, ROLE_KEYS)
        if not isinstance(role, str) or role.strip().lower() not in ROLES:
            raise DataError(f"{where}: the role is {role!r}; known are {', '.join(ROLES)}")
        turns.append({"role": ROLES[role.strip().lower()], "content": string(_first(turn, _TEXT_KEYS), where)})
    return turns


def transcript_of(text: str) -> Messages | None:
    """The turns of a text of `Human:` and `Assistant:` paragraphs, as HH's; None if it does not begin with `Human:`."""
    marks = list(_TRANSCRIPT.finditer(text))
    if not marks or text[: marks[0].start()].strip() or marks[0][1] != "Human":
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        {"role": ROLES[mark[1].lower()], "content": text[mark.end() : end].strip()}
        for mark, end in zip(marks, ends, strict=True)
    ]


def merged(turns: Sequence[dict[str, str]]) -> Messages:
    """What one speaker says in several turns as one, a line each."""
    found: Messages = []
    for turn in turns:
        if found and found[-1]["role"] == turn["role"]:
            found[-1] = {**turn, "content": f"{found[-1]['content']}\n{turn['content']}"}
        else:
            found.append(dict(turn))
    return found


def _first(turn: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((turn[key] for key in keys if key in turn), None)


def _of_exchange(turn: Mapping[str, Any], where: str) -> Messages:
    """An `input` and its `output`, with a `system` before the first, as XTuner has them; blank ones are left out."""
    given = [("system", turn.get("system")), ("user", turn["input"]), ("assistant", turn["output"])]
    texts = [(role, "" if value is None else string(value, where)) for role, value in given]
    return [{"role": role, "content": text} for role, text in texts if text.strip()]


def _of_texts(texts: Sequence[str], name: str) -> Messages:
    """Texts that each begin with their speaker (`患者：...`), or, where none does, of user and assistant in turn."""
    spoken = [_SPOKEN.fullmatch(text) for text in texts]
    if all(spoken):
        return merged([{"role": ROLES[one[1].lower()], "content": one[2].strip()} for one in spoken if one])
    if any(spoken[:2]):
        index = spoken.index(None)
        raise DataError(
            f"{name}[{index}] begins with no speaker, as other turns do; write one, such as 患者： or 医生："
        )
    if len(texts) < 2:
        raise DataError(f"{name} holds one text; a list of texts must be a question, its answer, and so on")
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
