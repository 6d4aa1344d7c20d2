"""The cleaning steps that process one row at a time, in order; each can be switched off and counts what it changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from data.prepare.cleaning.text import normalize, remove_markup
from data.prepare.likeness.tokens import codes_of, windows
from data.prepare.options import Options
from data.prepare.privacy.kinds import KINDS
from data.prepare.privacy.masking import mask
from data.prepare.schemas.convert import Row, check_row, texts_of, with_texts
from data.prepare.tally import Tally

REPETITION: Final = 10


@dataclass(frozen=True)
class Removed:
    """A row that a step removed, and why."""

    step: str
    reason: str
    text: str


def clean(
    row: Row, options: Options, where: str, tally: Tally, labels: Collection[str] = ()
) -> Iterator[Row | Removed]:
    """Yields the cleaned row, in several parts if it is a document of more than `max_chars` characters.

    A row or part that a step removes is yielded as a `Removed`.

    Args:
        row: a row of `options.schema`.
        options: the options of the preparation.
        where: the record's `file:line`, for examples.
        tally: counts what the steps do.
        labels: section labels of classical texts, which are removed.

    Raises:
        DataError: the trainers do not accept the row after cleaning.
    """
    row = _rewritten(row, options, where, tally, labels)
    if options.kind != "text":
        check_row(row)
        yield _judged(row, options)
        return
    parts = cut_text(row["text"], options.max_chars) if options.takes("length") else [row["text"]]
    tally.cut += len(parts) > 1
    for part in parts:
        new = {**row, "text": part}
        check_row(new)
        yield _judged(new, options)


def _rewritten(row: Row, options: Options, where: str, tally: Tally, labels: Collection[str]) -> Row:
    """Returns the row after the steps that change texts."""
    before = texts_of(row)
    if options.takes("unicode"):
        row = _changed("unicode", row, before, [normalize(text) for text in before], tally)
    if options.takes("markup"):
        before = texts_of(row)
        after = [remove_markup(text, labels) for text in before]
        if before != after:
            tally.show("markup", where, "as it is without mark-up", "\n".join(after))
        row = _changed("markup", row, before, after, tally)
    if options.takes("privacy"):
        before = texts_of(row)
        kinds = [kind for kind in KINDS if kind not in options.keep]
        done = [mask(text, kinds) for text in before]
        after = [text for text, _ in done]
        if counts := sum((count for _, count in done), Counter[str]()):
            tally.masked.update(counts)
            what = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
            tally.show("privacy", where, f"masked: {what}", "\n".join(after))
        row = _changed("privacy", row, before, after, tally)
    return row


def _changed(step: str, row: Row, before: list[str], after: list[str], tally: Tally) -> Row:
    if before == after:
        return row
    tally.changed[step] += 1
    return with_texts(row, after)


def cut_text(text: str, longest: int) -> list[str]:
    """Splits a text into parts of at most `longest` characters.

    Each part ends after the last newline in the second half of the `longest` characters; if there is none, after the
    last `。` there; otherwise at `longest` characters.
    """
    parts = []
    while len(text) > longest:
        half = longest // 2
        place = max(text.rfind("\n", half, longest) + 1, 0) or text.rfind("。", half, longest) + 1 or longest
        parts.append(text[:place].rstrip())
        text = text[place:].lstrip()
    return [*parts, text] if text or not parts else parts


def _judged(row: Row, options: Options) -> Row | Removed:
    text = "\n".join(texts_of(row))
    if options.takes("length"):
        if len(text) < options.shortest:
            return Removed("length", f"its number of characters, {len(text)}, is less than {options.shortest}", text)
        if len(text) > options.max_chars:
            return Removed("length", f"its number of characters, {len(text)}, exceeds {options.max_chars}", text)
    if options.takes("repetition"):
        share = max(map(repeated_share, texts_of(row)))
        if share > options.max_repeated:
            return Removed("repetition", f"{share:.0%} of it repeats what came before in it", text)
    return row


def repeated_share(text: str) -> float:
    """Returns the share of a text's windows of ten characters that occur earlier in it; 0 for less than 100 characters.

    In the spirit of the repetition filters of Rae et al. 2021 (Gopher, appendix A.1.1), for text without spaces.
    """
    if len(text) < 10 * REPETITION:
        return 0.0
    hashes = np.sort(windows(codes_of(text).astype(np.uint64), REPETITION))
    return int((hashes[1:] == hashes[:-1]).sum()) / len(hashes)
