"""Decontamination: finds evaluation items in rows of training data and removes them.

Texts are compared as tokens (see `data.prepare.likeness.tokens`), without the letters that label options. A match is

* text that has `ngram` consecutive tokens in common with a question, an option, an answer, or any other text of an
  item, as in GPT-3's decontamination (Brown et al. 2020, appendix C); the options count where they follow their
  question;
* a question with its options or one of them, or a question without options, that is whole lines, however short.

N-grams and questions that more than `_COMMON` items have in common are considered to be templates and are ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.prepare.cleaning.steps import Removed
from data.prepare.likeness.tokens import (
    LETTER,
    SEPARATOR,
    Hashes,
    Places,
    Tokens,
    codes_of,
    stretch_hashes,
    tokenize,
    windows,
)
from data.prepare.options import Options
from data.prepare.schemas.convert import Row, texts_of
from data.prepare.schemas.items import Item
from data.prepare.tally import Tally

SHORTEST: Final = 4  # minimum tokens of an item that is searched for
_COMMON: Final = 10  # items
_MAY_LACK: Final = 3  # one of this many tokens of a short question may be missing at its beginning
_LABELS: Final = tokenize(" ".join("abcdefghij")).hashes
_SEPARATOR: Final = tokenize(SEPARATOR).hashes[0]
_BEHIND_LABELS: Final = codes_of(".．:：)）、\n\t ")
_ALWAYS_BEHIND: Final = codes_of(".．:：)）")
_CLAUSE_ENDS: Final = "，。；！？、：,;!?…"


_TOGETHER: Final = 128 * 1024  # characters of rows that are searched together


class Span(NamedTuple):
    """Characters `start` to `end` of a text."""

    start: int
    end: int


class Evaluation:
    """The evaluation items to search for in rows.

    Args:
        items: the items.
        ngram: number of consecutive tokens in common that count as a match.

    Attributes:
        ngram: number of consecutive tokens in common that count as a match.
        items: number of items.
        only_whole: number of items that are found only as whole lines.
        too_short: number of items that are too short to be searched for.
    """

    def __init__(self, items: Iterable[Item], ngram: int) -> None:
        self.ngram, self.items, self.only_whole, self.too_short = ngram, 0, 0, 0
        strong, weak = Counter[int](), Counter[int]()
        lines: dict[int, Counter[int]] = {}
        for item in items:
            own = {gram for text in item.texts for gram in windows(_unlabeled(text).hashes, ngram).tolist()}
            question = _unlabeled(item.question).hashes
            asked = _unlabeled("\n".join([item.question, *item.options]))
            joined = windows(asked.hashes, ngram).tolist()
            if len(question) < ngram:  # a window with most of the question, since many questions have the same end
                own.update(joined[: len(question) // _MAY_LACK + 1] if len(question) else [])
            whole = _keys(item) if len(asked.hashes) >= SHORTEST else set()
            self.items += 1
            self.too_short += not own and not whole
            self.only_whole += not own and bool(whole)
            strong.update(own)
            weak.update(set(joined))
            for count, key in whole:
                lines.setdefault(count, Counter())[key] += 1
        self._strong, self._all = _frequent_out(strong), _frequent_out(weak | strong)
        self._lines = {count: _frequent_out(keys) for count, keys in sorted(lines.items())}

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """Returns the spans of each text that match evaluation items, in order and without overlaps.

        A span that starts at the beginning of a clause also includes the marks that directly follow it, such as 。.
        """
        whole = SEPARATOR.join(texts)
        tokens = _unlabeled(whole)
        ends = np.cumsum([len(text) + 1 for text in texts])
        found: list[list[Span]] = [[] for _ in texts]
        for first, last in sorted([*self._passages(tokens), *self._whole_lines(tokens, whole)]):
            index = int(np.searchsorted(ends, tokens.starts[first], side="right"))
            text, spans = texts[index], found[index]
            before = int(ends[index]) - len(text) - 1
            start, end = int(tokens.starts[first]) - before, int(tokens.ends[last - 1]) - before
            if spans and start <= spans[-1].end:
                start, end = spans[-1].start, max(spans.pop().end, end)
            spans.append(Span(start, _with_clause_end(text, start, end)))
        return found

    def _passages(self, tokens: Tokens) -> Iterable[tuple[int, int]]:
        """Returns ranges of tokens that n-grams of items cover.

        Each range has at least one n-gram of a single text or of the beginning of a short question with its options.
        """
        grams = windows(tokens.hashes, self.ngram)
        hits = np.flatnonzero(_among(grams, self._all))
        if not len(hits):
            return []
        bounds = np.flatnonzero(np.diff(hits) > self.ngram) + 1
        runs = [run for run in np.split(hits, bounds) if _among(grams[run], self._strong).any()]
        return [(int(run[0]), int(run[-1]) + self.ngram) for run in runs]

    def _whole_lines(self, tokens: Tokens, text: str) -> Iterable[tuple[int, int]]:
        """Returns the ranges of tokens that consist of whole lines and form a question with its options."""
        if not self._lines or not len(tokens.hashes):
            return []
        firsts, lasts, hashes = _line_hashes(tokens, text)
        sums = np.append(np.uint64(0), np.cumsum(hashes))
        return [
            (int(firsts[place]), int(lasts[place + count - 1]))
            for count, keys in self._lines.items()
            if count <= len(hashes)
            for place in np.flatnonzero(_among(sums[count:] - sums[:-count], keys)).tolist()
        ]


def _keys(item: Item) -> set[tuple[int, int]]:
    """Returns `(number of lines, sum of their hashes)` of each form that a question with its options may have.

    The sum does not depend on the order of the lines. The forms are one option per line, all options in one line, each
    of these with one of the options repeated as the answer, and the question with a single option.
    """
    texts = ["\n".join([item.question, *item.options]), " ".join([item.question, *item.options]).replace("\n", " ")]
    found = {(len(hashes), int(hashes.sum())) for hashes in map(_hashes_of, texts)}
    answers = [_hashes_of(option) for option in item.options]
    if item.options and len(_unlabeled(item.question).hashes) >= SHORTEST:
        asked = _hashes_of(item.question)
        alone = {(len(asked) + len(answer), int(np.append(asked, answer).sum())) for answer in answers}
    else:
        alone = set()
    return (
        alone
        | found
        | {
            (count + len(answer), int(np.append(answer, np.uint64(key)).sum()))
            for count, key in found
            for answer in answers
        }
    )


def _hashes_of(text: str) -> Hashes:
    return _line_hashes(_unlabeled(text), text)[2]


def _line_hashes(tokens: Tokens, text: str) -> tuple[Places, Places, Hashes]:
    """Returns the first tokens of lines that have tokens, the ends of these lines, and a hash of each, all (lines,)."""
    ends = np.searchsorted(tokens.starts, np.flatnonzero(codes_of(text) == ord("\n")))
    apart = np.flatnonzero(tokens.hashes == _SEPARATOR)
    bounds = np.unique(np.concatenate([[0], ends, apart, apart + 1, [len(tokens.hashes)]]))
    return bounds[:-1], bounds[1:], stretch_hashes(tokens.hashes, bounds[:-1], bounds[1:])


def _unlabeled(text: str) -> Tokens:
    """Returns the tokens of a text without the letters that label options, as in `A. text`."""
    tokens = tokenize(text)
    letters = np.flatnonzero((tokens.kinds == LETTER) & (tokens.ends - tokens.starts == 1))
    letters = letters[np.isin(tokens.hashes[letters], _LABELS)] if len(letters) else letters
    if not len(letters):
        return tokens
    behind = np.append(codes_of(text), np.uint32(ord("\n")))[tokens.ends[letters]]
    apart = (letters == 0) | (tokens.ends[letters - 1] < tokens.starts[letters])
    labels = (np.isin(behind, _BEHIND_LABELS) & apart) | np.isin(behind, _ALWAYS_BEHIND)
    keep = np.ones(len(tokens.hashes), bool)
    keep[letters[labels]] = False
    return tokens.only(keep)


def _with_clause_end(text: str, start: int, end: int) -> int:
    """Returns the end of a passage, including the mark that ends its clause if the passage begins with a clause."""
    if start and text[start - 1].isalnum():
        return end
    while end < len(text) and text[end] in _CLAUSE_ENDS:
        end += 1
    return end


def _frequent_out(counts: Mapping[int, int]) -> Hashes:
    """Returns the hashes that at most `_COMMON` items have, sorted."""
    return np.array(sorted(one for one, count in counts.items() if count <= _COMMON), np.uint64)


def _among(hashes: Hashes, others: Hashes) -> NDArray[np.bool_]:
    """Returns a mask of the hashes that are among `others`, which are sorted."""
    if not len(others):
        return np.zeros(len(hashes), bool)
    return others[np.minimum(np.searchsorted(others, hashes), len(others) - 1)] == hashes


class Cleaned(NamedTuple):
    """A row of the record on a line, or what was removed from the record.

    `where` is `file:line`; `key` is a digest of the record's id, or None if the record has no id.
    """

    line: int
    where: str
    outcome: Row | Removed
    key: bytes | None


def decontaminated(
    cleaned: Iterable[Cleaned], evaluation: Evaluation | None, options: Options, tally: Tally
) -> Iterator[Cleaned]:
    """Yields the same outcomes in the same order, without text that matches evaluation items.

    The text is cut out of documents. Rows of other kinds, and documents of which too little is left, become `Removed`.
    """
    if evaluation is None:
        yield from cleaned
        return
    some, size = list[tuple[Cleaned, str]](), 0
    for one in cleaned:
        text = one.outcome.text if isinstance(one.outcome, Removed) else "\n".join(texts_of(one.outcome))
        some.append((one, text))
        size += len(text)
        if size >= _TOGETHER:
            yield from _looked_through(some, evaluation, options, tally)
            some, size = [], 0
    if some:
        yield from _looked_through(some, evaluation, options, tally)


def _looked_through(
    some: Sequence[tuple[Cleaned, str]], evaluation: Evaluation, options: Options, tally: Tally
) -> Iterator[Cleaned]:
    for (one, text), spans in zip(some, evaluation.spans([text for _, text in some]), strict=True):
        if spans and not isinstance(one.outcome, Removed):
            one = one._replace(outcome=_without(one.outcome, text, spans, options, one.where, tally))
        yield one


def _without(row: Row, text: str, spans: Sequence[Span], options: Options, where: str, tally: Tally) -> Row | Removed:
    """Returns a document without the passages that match items, each replaced by a line end.

    Rows of other kinds are removed, as are documents of which fewer than `options.shortest` characters are left.
    """
    shared = " … ".join(text[start:end] for start, end in spans)
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    parts = (text[start:end].strip() for start, end in zip(edges[::2], edges[1::2], strict=True))
    left = "\n".join(part for part in parts if part)
    cut = len(text) - len(left)
    if options.kind != "text" or len(left) < options.shortest:
        tally.overlap.update(rows=1, row_characters=len(text))
        return Removed("decontamination", f"contains text of evaluation items: {shared}", text)
    tally.overlap.update(passages=len(spans), passage_characters=cut)
    tally.changed["decontamination"] += 1
    tally.show("decontamination", where, f"cut, because it is in evaluation items: {shared}", left)
    return {**row, "text": left}
