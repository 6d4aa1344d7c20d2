"""Converts a record with options to a choice question, for `data.prepare` and for `evals`.

Supported are C-Eval's and CMMLU's columns (`question`, `A`, `B`, ..., `answer`), CMB's `option` object, CMExam's
`Options` lines, MedQA's `options` (an object, a list of texts, or a list of key-value objects), MedMCQA's `opa` to
`opd` with `cop`, and MMLU's and ARC's `choices`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data.choices.columns import (
    ANSWERS,
    CONTEXTS,
    CONTINUED,
    EXPLANATIONS,
    KEYS,
    LISTED,
    QUESTIONS,
    first_filled,
    is_blank,
    normalized,
    option_columns,
    unknown_options,
)
from data.choices.keys import right_options
from data.choices.options import Options, checked, label_of, read_options, text_of
from data.choices.question import COUNTED, NO_QUESTION, UNCLEAR, ChoiceQuestion, UnusableQuestion

Record = Mapping[Any, Any]


def read_choice(record: Record, first: int | None = None) -> ChoiceQuestion | None:
    """Returns the choice question of a record; None if the record has no options.

    A record without a key is a question without an answer.

    Args:
        record: the record, in any supported layout.
        first: the number of the first option, 0 or 1, if keys are numbers; None if unknown.

    Raises:
        UnusableQuestion: the record has or seems to have options, but they cannot be read, there is no question, or the
            key is ambiguous or names none of them.
    """
    _check_names(record)
    record = _flat(record)
    options = _options(record)
    if options is None:
        strange = [str(name) for name in unknown_options(record) if not is_blank(record[name])]
        if strange:
            raise UnusableQuestion(
                UNCLEAR,
                f"column {', '.join(strange)} seems to hold options in an unknown layout; use columns A, B, ... or "
                "one column options, or drop it",
            )
        return None
    question = _question(record)
    if not question:
        raise UnusableQuestion(
            NO_QUESTION,
            f"there are options but no question (columns {', '.join(map(str, record))}); fill a column question",
        )
    answers = _answers(record, options, first)
    column, explanation = first_filled(record, EXPLANATIONS)
    explained = "" if column is None or is_blank(explanation) else text_of(explanation, str(column))
    return ChoiceQuestion(question, tuple(text for _, text in options), answers, explained)


def _check_names(record: Record) -> None:
    """Rejects columns whose normalized names are equal (`answer` and `Answer`) and whose values differ."""
    if len({normalized(name) for name in record}) == len(record):
        return
    filled: dict[str, Any] = {}
    for name, value in record.items():
        if not is_blank(value) and filled.setdefault(normalized(name), value) != value:
            raise UnusableQuestion(
                UNCLEAR, f"two columns are named {normalized(name)!r} and differ; rename one of them"
            )


def _flat(record: Record) -> Record:
    """Returns the record; a question that is an object, such as ARC's `{"stem", "choices"}`, is expanded to columns."""
    column, value = first_filled(record, ("question",))
    if not isinstance(value, Mapping) or "stem" not in value:
        return record
    return {**{name: one for name, one in record.items() if name != column}, **value}


def context_of(record: Record) -> str:
    """Returns the text that a question is about, from a separate column: a text, a list of texts, or PubMedQA's object.

    Raises:
        UnusableQuestion: the column holds a value of another type.
    """
    column, value = first_filled(record, CONTEXTS)
    if isinstance(value, Mapping):
        value = value.get("contexts", value)
    if column is None or is_blank(value):
        return ""
    texts = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(one, str) for one in texts):
        raise UnusableQuestion(UNCLEAR, f"{column} holds {value!r:.80}; it must be a text or a list of texts")
    return "\n".join(one.strip() for one in texts)


def asks_in_words(record: Record) -> bool:
    """Returns whether the question contains all options and the key is a text, as in PromptCBLUE's `answer_choices`."""
    column, choices = first_filled(record, ("answer_choices",))
    if column is None or not isinstance(choices, list) or option_columns(record) != (column, {}):
        return False
    return not _letters_only(record) and all(str(choice) in _question(record) for choice in choices)


def key_column(record: Record) -> str:
    """Returns the column that holds, or would hold, a record's key; empty if the record has none."""
    column, _ = first_filled(record, (*KEYS, *ANSWERS))
    return "" if column is None else str(column)


def count_from(records: Sequence[Record]) -> int | None:
    """Returns the number of the first option, 0 or 1, in a file's numeric keys; None unless exactly one fits them."""
    numbered = [record for record in records if _fault(record, None) == COUNTED]
    fitting = [first for first in (0, 1) if not any(_fault(record, first) for record in numbered)]
    return fitting[0] if len(fitting) == 1 else None


def _fault(record: Record, first: int | None) -> str:
    try:
        read_choice(record, first)
    except UnusableQuestion as error:
        return error.kind
    return ""


def _options(record: Record) -> Options | None:
    group, single = option_columns(record)
    if group is None and not single:
        group = _listed(record)
    together = None
    if group is not None and not is_blank(record[group]):
        together = read_options(record[group], str(group))
    if single and not all(is_blank(record[column]) for column in single.values()):
        names = f"{next(iter(single.values()))} to {next(reversed(single.values()))}"
        each = [(label_of(label), text_of(record[column], str(column))) for label, column in single.items()]
        apart = checked(each, names)
        if together is not None and [text for _, text in together] != [text for _, text in apart]:
            raise UnusableQuestion(UNCLEAR, f"columns {group} and {names} hold different options; drop one of them")
        return apart
    if together is None and (group is not None or single) and _letters_only(record):
        raise UnusableQuestion(
            UNCLEAR,
            f"columns {', '.join(map(str, [group, *single.values()] if group else single.values()))} are empty, so it is unknown what the answer stands for",
        )
    return together


def _listed(record: Record) -> Any | None:
    """Returns a column of `LISTED` with a list of options if the key consists of letters or is in a column of `KEYS`.

    An example is HEAD-QA's `answers`.
    """
    column, value = first_filled(record, LISTED)
    if column is None or not _can_be_options(value):
        return None
    return column if _letters_only(record) or not is_blank(first_filled(record, KEYS)[1]) else None


def _can_be_options(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) < 2:
        return False
    if all(isinstance(one, str) for one in value):
        return not all(label_of(one) for one in value)  # a list of letters is a key
    try:
        return bool(read_options(value, ""))
    except UnusableQuestion:
        return False


def _letters_only(record: Record) -> bool:
    """Returns whether the key consists of letters only, which have no meaning without options."""
    value = first_filled(record, (*KEYS, *ANSWERS))[1]
    return (
        isinstance(value, str)
        and 0 < len(value.strip()) <= 10
        and all(label_of(one).isalpha() for one in value.strip())
    )


def _question(record: Record) -> str:
    column, value = first_filled(record, QUESTIONS)
    more_column, more = first_filled(record, CONTINUED)
    parts = [(column, value), (more_column, more)]
    asked = [text_of(value, str(name)) for name, value in parts if name is not None and not is_blank(value)]
    return "\n".join(filter(None, [context_of(record), *asked])) if asked else ""


def _answers(record: Record, options: Options, first: int | None) -> tuple[int, ...]:
    """Returns the options that all key columns together name.

    An error in a column that can only name options (`answer_idx`) is raised. An error in a column that may also hold a
    text is ignored if another column has a valid key.
    """
    found: dict[str, tuple[int, ...]] = {}
    failed: UnusableQuestion | None = None
    for names, strict in ((KEYS, True), (ANSWERS, False)):
        column, value = first_filled(record, names)
        if column is None or is_blank(value) or value == -1:  # MedMCQA's test split has -1 for no key
            continue
        try:
            found[str(column)] = right_options(value, options, first, str(column))
        except UnusableQuestion as error:
            if strict and error.kind != COUNTED:
                raise
            failed = failed or error
    if not found and failed:
        raise failed
    if len(set(found.values())) > 1:
        (one, _), (other, _) = found.items()
        raise UnusableQuestion(UNCLEAR, f"columns {one} and {other} name different options; correct one of them")
    return next(iter(found.values()), ())
