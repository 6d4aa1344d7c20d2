"""Finds rows that make the same statement in another wording.

Two wordings of one statement may differ in punctuation, blanks, function characters, and the order of clauses. Such
rows are found by equal fingerprints. Long rows may also differ in a few short words that occur once and have the same
meaning. Candidates for these are rows that share windows of tokens that are rare in the corpus; `alike` compares their
texts. Numbers, negations, names, and Latin words must always be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from data.prepare.likeness.tokens import (
    FUNCTION,
    MARK,
    SEPARATOR,
    Hashes,
    Places,
    Tokens,
    codes_of,
    stretch_hashes,
    tokenize,
    tokens_of,
    windows,
)
from data.prepare.schemas.convert import Row, texts_of

PERMUTATIONS: Final = 16
SIGNATURE_BYTES: Final = 4 * PERMUTATIONS
LONG: Final = 100  # minimum tokens of a row with a signature
SHORTEST: Final = 4  # tokens; rows with fewer have no fingerprint
_WINDOW: Final = 8
_OVERLAP: Final = 3
_WORD: Final = 2  # maximum tokens of a word that may differ
_SYNONYMS: Final = {
    word: group
    for group, words in enumerate(
        [
            "医生 大夫 医师",
            "孩子 小孩",
            "患者 病人 病患",
            "导致 引起 造成 引发 致使",
            "因为 由于",
            "所以 因此 因而",
            "但是 然而 可是 不过 但",
            "如果 假如 倘若 若 若是",
            "以及 和 与 及",
            "可能 或许 也许",
            "经常 常常 时常 常",
            "立即 立刻 马上",
            "尽快 尽早",
            "目前 现在 当前",
            "需要 须 需",
            "可以 能 能够 可",
            "并且 而且 且 并",
            "通常 一般 往往",
            "注意 留意",
            "建议 推荐",
            "以后 之后 后",
        ]
    )
    for word in words.split()
}
"""Everyday words that may replace one another."""
_EMPTY: Final = frozenset(
    [
        "非常",
        "十分",
        "特别",
        "很",
        "极为",
        "较为",
        "所谓",
        "已经",
        "已",
        "的话",
        "来说",
        "一些",
        "此外",
        "另外",
        "其实",
        "首先",
        "然后",
        "最后",
    ]
)
"""Words that one row may have and the other may omit, because they do not change a statement."""
_SEED: Final = 1
_SEPARATOR: Final = tokenize(SEPARATOR).hashes[0]
_CLAUSE_ENDS: Final = codes_of("\n，。；！？,;!?")
_TURN: Final = np.uint64(0x9E3779B97F4A7C14)  # even, so that factors are odd

Fingerprints = NDArray[np.uint64]  # (N, 2)
Signatures = NDArray[np.uint32]  # (N, PERMUTATIONS)


def compared(row: Row, answers: str) -> tuple[list[str], list[str]]:
    """Returns the texts of a row that are compared, as `(texts of the body, answers)`.

    Answers are the assistant's turns and `chosen`. If `answers` is `any`, they and `rejected` are left out.
    """
    if "chosen" in row:
        body = [turn["content"] for turn in row["prompt"]]
        return (body, []) if answers == "any" else ([*body, row["rejected"]], [row["chosen"]])
    turns = row.get("messages")
    if turns is None:
        return texts_of(row), []
    body = [turn["content"] for turn in turns if turn["role"] != "assistant"]
    return body, [] if answers == "any" else [turn["content"] for turn in turns if turn["role"] == "assistant"]


def fingerprints(rows: Sequence[Row], answers: str) -> tuple[Fingerprints, Signatures]:
    """Returns the hashes by which rows that make the same statement are found.

    Args:
        rows: N rows, at least one.
        answers: `same` includes answers, `any` does not.

    Returns:
        Fingerprints, (N, 2), and signatures, (N, PERMUTATIONS). A fingerprint has two hashes: of a row's tokens without
        function characters, in order, and of its clauses, in any order within a text; both are 0 for a row of fewer
        than `SHORTEST` tokens. A signature is a MinHash (Broder 1997) of windows of tokens, all 0 for a row of fewer
        than `LONG` tokens.
    """
    texts = [SEPARATOR.join([*body, *said]) for body, said in (compared(row, answers) for row in rows)]
    codes = codes_of(SEPARATOR.join(texts))
    tokens = tokens_of(codes, dropped=FUNCTION)
    lasts = np.cumsum([len(text) + 1 for text in texts]) - 1
    ends = np.searchsorted(tokens.starts, lasts)
    starts = np.append(0, ends[:-1] + 1)  # after the separator of the previous row
    found = np.stack([stretch_hashes(tokens.hashes, starts, ends), _clauses(codes, tokens, starts, ends)], axis=1)
    found[ends - starts < SHORTEST] = 0
    return found, _signatures(tokens.hashes, starts, ends)


def _telling(text: str) -> Tokens:
    return tokens_of(codes_of(text), dropped=FUNCTION)


def _clauses(codes: NDArray[np.uint32], tokens: Tokens, starts: Places, ends: Places) -> Hashes:
    """Returns, for each row, the sum of its clauses' hashes, weighted by the index of the clause's text, (rows,)."""
    separators = tokens.hashes == _SEPARATOR
    bound = np.zeros(len(separators) + 1, bool)
    bound[:-1] |= separators
    bound[1:] |= separators
    bound[np.searchsorted(tokens.starts, np.flatnonzero(np.isin(codes, _CLAUSE_ENDS)))] = True
    bound[starts] = bound[ends] = True
    bounds = np.flatnonzero(bound)
    before = np.append(0, np.cumsum(separators))
    rows = np.searchsorted(starts, bounds[:-1], side="right") - 1
    factors = (before[bounds[:-1]] - before[starts[rows]]).astype(np.uint64) * _TURN + np.uint64(1)
    sums = np.append(np.uint64(0), np.cumsum(stretch_hashes(tokens.hashes, bounds[:-1], bounds[1:]) * factors))
    return sums[np.searchsorted(bounds, ends)] - sums[np.searchsorted(bounds, starts)]


def _signatures(hashes: Hashes, starts: Places, ends: Places) -> Signatures:
    found = np.zeros((len(starts), PERMUTATIONS), np.uint32)
    long = np.flatnonzero(ends - starts >= LONG)
    if len(long):
        counts = ends[long] - starts[long] - (_WINDOW - 1)
        edges = np.zeros(len(hashes) + 1, np.int8)
        edges[starts[long]] += 1
        edges[starts[long] + counts] -= 1
        of_rows = windows(hashes, _WINDOW)
        of_rows = of_rows[np.cumsum(edges)[: len(of_rows)] > 0]
        offsets = np.append(0, np.cumsum(counts)).astype(np.uint64)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(of_rows, offsets, PERMUTATIONS, _SEED).to_rows()
        found[long] = np.array(rows, np.uint32)
    return found


def alike(kept: Row, removed: Row, answers: str, threshold: float) -> bool:
    """Returns whether two long rows make the same statement except for a few words.

    Their answers must be equal. In each row, at least a share of `threshold` of the tokens must be in windows that the
    other row has, too. The remaining tokens must not be numbers, negations, or Latin words, must not form runs of more
    than `_WORD` tokens, as names do, and must not occur twice, as the subject of a text does. Every remaining word must
    correspond to a word of the other row or have no meaning: 贫血 instead of 黄疸, or 左 instead of 右, makes a
    different statement.

    Args:
        kept: a row.
        removed: a later row, which is a duplicate if they are alike.
        answers: `same` compares answers, too; `any` does not.
        threshold: minimum share of tokens in common windows.
    """
    parts = [compared(row, answers) for row in (kept, removed)]
    one, other = (_telling(SEPARATOR.join(answer)).hashes for _, answer in parts)
    if not np.array_equal(one, other):
        return False
    texts = [SEPARATOR.join([*body, *answer]) for body, answer in parts]
    first, second = map(_telling, texts)
    one, other = (np.sort(side.hashes[side.kinds >= MARK]) for side in (first, second))
    if not np.array_equal(one, other):
        return False
    own = [_own(first.hashes, second.hashes), _own(second.hashes, first.hashes)]
    if not (_are_words(first, own[0], threshold) and _are_words(second, own[1], threshold)):
        return False
    return _stand_for(_words(texts[0], first, own[0]), _words(texts[1], second, own[1]))


def _own(hashes: Hashes, others: Hashes) -> NDArray[np.bool_]:
    """Returns a mask of the T tokens that are in no window of tokens that `others` has, too, (T,)."""
    shared = np.isin(windows(hashes, _OVERLAP), windows(others, _OVERLAP))
    covered = np.zeros(len(hashes), bool)
    for place in range(_OVERLAP):
        covered[place : place + len(shared)] |= shared
    return ~covered


def _are_words(tokens: Tokens, own: NDArray[np.bool_], threshold: float) -> bool:
    count = int(own.sum())
    if count > (1 - threshold) * len(own) or (tokens.kinds[own] >= MARK).any():
        return False
    runs = _runs(own)
    return bool((runs[:, 1] - runs[:, 0] <= _WORD).all()) and len(np.unique(tokens.hashes[own])) == count


def _runs(own: NDArray[np.bool_]) -> Places:
    """Returns the start and end of each run of true values, (R, 2)."""
    return np.flatnonzero(np.diff(own, prepend=False, append=False)).reshape(-1, 2)


class _Word(NamedTuple):
    """A word that only one row has: alone, and with the adjacent character before or after it.

    Two synonyms may share a character, which then is not part of the word that only one row has.
    """

    alone: str
    with_before: str
    with_behind: str


def _words(text: str, tokens: Tokens, own: NDArray[np.bool_]) -> list[_Word]:
    """Returns the words that only this row has, except those that repeat adjacent characters, as in 反反复复."""
    characters = [text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)]
    found = []
    for first, last in _runs(own).tolist():
        before, behind = characters[max(0, first - 1) : first], characters[last : last + 1]
        if not set(characters[first:last]) <= {*before, *behind}:
            parts = (characters[first:last], [*before, *characters[first:last]], [*characters[first:last], *behind])
            found.append(_Word(*map("".join, parts)))
    return found


def _stand_for(ones: Sequence[_Word], others: Sequence[_Word]) -> bool:
    """Returns whether the words that only one row has pair off one to one with equivalent words of the other row.

    Words in `_EMPTY`, such as 非常, need no counterpart.
    """
    left = list(others)
    for one in ones:
        partner = next((other for other in left if _same_word(one, other)), None)
        if partner is not None:
            left.remove(partner)
        elif one.alone not in _EMPTY:
            return False
    return all(other.alone in _EMPTY for other in left)


def _same_word(one: _Word, other: _Word) -> bool:
    """Returns whether two words are synonyms, or written with the same characters."""
    return set(one.alone) == set(other.alone) or any(
        word in _SYNONYMS and _SYNONYMS[word] == _SYNONYMS.get(another)
        for word, another in zip(one, other, strict=True)
    )
