"""The steps that look at one row at a time, in their order; each can be switched off and counts what it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data.prepare.options import Options
from data.prepare.schemas import Row, check_row, texts_of, with_texts
from data.prepare.tally import Tally
from data.prepare.text import TEXT_STEPS
from data.prepare.windows import Evaluation, repeated_share


@dataclass(frozen=True)
class Removed:
    """A row that a step took out, and why."""

    step: str
    reason: str
    text: str


def clean(
    row: Row, options: Options, evaluation: Evaluation | None, where: str, tally: Tally
) -> Iterator[Row | Removed]:
    """The row cleaned, in several parts if it is a document of more than `max_chars`, or why it is left out.

    Raises:
        DataError: after cleaning the row is not one that the stages accept.
    """
    for step, change in TEXT_STEPS.items():
        if options.takes(step):
            before = texts_of(row)
            done = [change(text) for text in before]
            count = sum(number for _, number in done)
            if count:
                row = with_texts(row, [text for text, _ in done])
                tally.changed[step] += 1
                if step == "privacy":
                    tally.masked += count
                    tally.show(step, where, f"{count} masked", "\n".join(text for text, _ in done))
    if options.kind != "text":
        check_row(row)
        yield _judged(row, options, evaluation)
        return
    parts = cut_text(row["text"], options.max_chars) if options.takes("length") else [row["text"]]
    tally.cut += len(parts) > 1
    for part in parts:
        new = {**row, "text": part}
        check_row(new)
        yield _judged(new, options, evaluation)


def cut_text(text: str, longest: int) -> list[str]:
    """Parts of at most `longest` characters, cut at the last line's end, else sentence's end, in their second half."""
    parts = []
    while len(text) > longest:
        half = longest // 2
        place = max(text.rfind("\n", half, longest) + 1, 0) or text.rfind("。", half, longest) + 1 or longest
        parts.append(text[:place].rstrip())
        text = text[place:].lstrip()
    return [*parts, text] if text or not parts else parts


def _judged(row: Row, options: Options, evaluation: Evaluation | None) -> Row | Removed:
    text = "\n".join(texts_of(row))
    if options.takes("length"):
        if len(text) < options.shortest:
            return Removed("length", f"has {len(text)} characters, fewer than {options.shortest}", text)
        if len(text) > options.max_chars:
            return Removed("length", f"has {len(text)} characters, more than {options.max_chars}", text)
    if options.takes("repetition"):
        share = max(map(repeated_share, texts_of(row)))
        if share > options.max_repeated:
            return Removed("repetition", f"{share:.0%} of it repeats what came before in it", text)
    if evaluation and (shared := evaluation.shared(text)):
        return Removed("decontamination", f"shares with an evaluation item: {shared}", text)
    return row
