"""The columns of a record that hold a choice question's options, its answer key, and its explanation.

Column names are compared without regard to case, surrounding whitespace, and the width of letters.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

QUESTIONS: Final = (
    "question",
    "query",
    "stem",
    "qtext",
    "problem",
    "题目",
    "题干",
    "问题",
    "question_stem",
    "instruction",
    "instruct",
    "prompt",
)
CONTINUED: Final = ("input",)
"""Columns that continue the question of another column, or hold the whole question if there is no such column."""
CONTEXTS: Final = (
    "context",
    "contexts",
    "passage",
    "passages",
    "article",
    "paragraph",
    "background",
    "share_question",
    "shared_stem",
    "上下文",
    "背景",
    "材料",
    "文章",
    "共用题干",
)
"""Columns of texts that a question is about."""
KEYS: Final = (
    "answer_idx",
    "answer_index",
    "answeridx",
    "answerkey",
    "answer_key",
    "correct_option",
    "correct_idx",
    "cop",
    "ra",
)
"""Columns that name the correct option and never hold only its text."""
ANSWERS: Final = (
    "answer", "answers", "correct_answer", "correct", "right_answer", "正确答案", "参考答案", "标准答案", "答案", "gold", "label",
    "target", "output", "response", "completion",
)  # fmt: skip
EXPLANATIONS: Final = (
    "explanation", "explanations", "answer_explanation", "explain", "exp", "rationale", "analysis", "reasoning", "reason", "solution", "cot",
    "解析", "答案解析", "试题解析", "题目解析", "解释", "答案解释", "解题思路", "分析", "讲解",
)  # fmt: skip
GROUPS: Final = (
    "options",
    "option",
    "choices",
    "choice",
    "选项",
    "备选答案",
    "备选项",
    "answer_choices",
    "answer_options",
)
"""Columns that hold all options."""
LISTED: Final = ("answers", "candidates", "endings", "alternatives", "候选", "候选项", "候选答案")
"""Columns that hold all options if their value is a list and another column has the key."""

_OPTION: Final = re.compile(r"(?:(?:options?|opt|op|choices?|选项)[ _.-]*)?[(（\[]?([a-z])[)）\].、]?(?:[ _-]*选项)?")
_NUMBERED: Final = re.compile(r"(?:options?|opt|op|choices?|ending|选项)[ _.-]*(\d{1,2})")
_LIKE_OPTIONS: Final = re.compile(r"option|choice|distractor|incorrect|选项|干扰项|备选")
_ABOUT: Final = re.compile(r"type|count|num|id$|类型|数量|个数")


def normalized(name: Any) -> str:
    """Returns a column's name in the form in which names are compared."""
    return unicodedata.normalize("NFKC", str(name)).strip("\ufeff \t\r\n").lower()


_NAN: Final = ("", "nan", "<na>", "#n/a")
"""Texts, in lower case, that stand for an empty cell in files written by pandas."""


def is_blank(value: Any) -> bool:
    """Returns whether a cell is empty: null, NaN (also as pandas writes it), white space, or only such values."""
    if isinstance(value, Mapping):
        return all(map(is_blank, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_blank, value))
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and value.strip().lower() in _NAN)
    )


def option_columns(names: Iterable[Any]) -> tuple[Any | None, dict[str, Any]]:
    """Returns the column that holds all options, if there is one, and the columns that hold one option each, by label.

    A label is a letter, or a number if the columns are numbered. A lone column `A` is not an option.
    """
    by_name: dict[str, Any] = {}
    for name in names:
        by_name.setdefault(normalized(name), name)
    group = next((by_name[name] for name in GROUPS if name in by_name), None)
    single = {name: column for name, column in by_name.items() if name not in GROUPS}
    found = {match[1]: column for name, column in single.items() if (match := _OPTION.fullmatch(name))}
    if not {"a", "b"} <= set(found):
        numbered = {match[1]: column for name, column in single.items() if (match := _NUMBERED.fullmatch(name))}
        found = numbered if len(numbered) > 1 else {}
    return group, dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def unknown_options(names: Iterable[Any]) -> list[Any]:
    """Returns the columns whose names suggest that they hold options, but not in a known layout."""
    group, single = option_columns(names)
    known = {group, *single.values()}
    return [
        name
        for name in names
        if name not in known and _LIKE_OPTIONS.search(normalized(name)) and not _ABOUT.search(normalized(name))
    ]


def first_filled(record: Mapping[Any, Any], names: Iterable[str]) -> tuple[Any | None, Any]:
    """Returns the first of these columns that is not blank, and its value.

    If all are blank, returns the first that exists; `(None, None)` if none exists.
    """
    by_name = {normalized(name): name for name in reversed(list(record))}
    present = [by_name[name] for name in names if name in by_name]
    filled = next((name for name in present if not is_blank(record[name])), present[0] if present else None)
    return filled, None if filled is None else record[filled]
