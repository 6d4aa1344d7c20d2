"""Tokenizes texts for comparison: a token is a Chinese character, a Latin word, a number, or a sign with a meaning.

Punctuation, blanks, and the width and case of letters are ignored. Operates on arrays of code points.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

SEPARATOR: Final = "\x1f"
"""Separates texts that are compared as one; it is a token."""

NOTHING, JOINT, FUNCTION, HAN, MARK, LETTER, DIGIT = range(7)
"""Kinds of characters. Those from `MARK` on must be equal in rows that make the same statement."""

_FUNCTION: Final = "的地得了着吗呢吧啊呀嘛哦啦么也矣我你您他她它们咱俺是就都还请问好谢应该当怎如何样啥什这那"
"""Particles, pronouns, and other function characters, in which wordings of one statement may differ."""
_MARKS: Final = "不无毋非未勿没莫否别零〇一二两三四五六七八九十百千万亿半几%‰°℃℉^" + SEPARATOR
"""Negations, numerals, and signs that are not in Unicode's category of mathematical signs."""
_JOINTS: Final = ".,:/~+-\u2212\u2013"
_SIGNS: Final = "+-\u2212\u2013"
_NO_WORDS: Final = 0x2E80  # from the CJK scripts on, each character is a token
_BMP: Final = 0x10000
_IDEOGRAPHS: Final = (0x3400, 0xD7A4)  # the range includes other scripts whose characters are tokens
_FULL_WIDTH: Final = (0xFF01, 0xFF5F)
_TO_FULL_WIDTH: Final = 0xFEE0
_HAN_PLANES: Final = (0x20000, 0x40000)
_BASE: Final = 0x9E3779B97F4A7C15
_INVERSE: Final = pow(_BASE, -1, 2**64)
_LONGEST_WORD: Final = 64  # letters; the order of those beyond is ignored


@dataclass(frozen=True)
class Tokens:
    """T tokens of a text.

    Attributes:
        hashes: a hash of each token, (T,); equal tokens have equal hashes.
        starts, ends: the position of each token in the text, in characters, (T,).
        kinds: FUNCTION, HAN, MARK, LETTER, or DIGIT, (T,).
    """

    hashes: Hashes
    starts: Places
    ends: Places
    kinds: NDArray[np.uint8]

    def only(self, keep: NDArray[np.bool_]) -> Tokens:
        """Returns the tokens that a mask, (T,), selects."""
        return Tokens(self.hashes[keep], self.starts[keep], self.ends[keep], self.kinds[keep])


def codes_of(text: str) -> NDArray[np.uint32]:
    """Returns the code points of a text, (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def tokenize(text: str) -> Tokens:
    """Tokenizes a text.

    The characters `. , : / ~ + -`, the Unicode minus, and the en dash are tokens between two digits. Plus, minus, and
    dash are also tokens directly before a digit. Elsewhere, all of them are ignored.
    """
    return tokens_of(codes_of(text))


def tokens_of(codes: NDArray[np.uint32], dropped: int = NOTHING) -> Tokens:
    """Tokenizes code points, (len(text),), like `tokenize`; leaves out the tokens of the kind `dropped`."""
    folded, table = _tables()
    inside = np.minimum(codes, _BMP - 1)
    kinds, units = table[inside], folded[inside]
    beyond = np.flatnonzero(codes >= _BMP)
    if len(beyond):
        units[beyond] = codes[beyond]
        kinds[beyond] = np.where((codes[beyond] >= _HAN_PLANES[0]) & (codes[beyond] < _HAN_PLANES[1]), HAN, NOTHING)
    joints = np.flatnonzero(kinds == JOINT)
    if len(joints):
        digits = np.concatenate([[False], kinds == DIGIT, [False]])
        counts = digits[joints + 2] & (digits[joints] | np.isin(units[joints], codes_of(_SIGNS)))
        kinds[joints] = np.where(counts, MARK, NOTHING)
    places = np.flatnonzero((kinds != NOTHING) & (kinds != dropped))
    of = kinds[places]
    hashes, ends = _spread(units[places]), places + 1
    letters = np.flatnonzero(of >= LETTER)
    if not len(letters):
        return Tokens(hashes, places, ends, of)
    goes_on = np.zeros(len(letters), bool)
    goes_on[1:] = (np.diff(places[letters]) == 1) & (of[letters[1:]] == of[letters[:-1]])
    firsts = np.flatnonzero(~goes_on)
    within = np.arange(len(letters)) - firsts[np.cumsum(~goes_on) - 1]
    powers = _powers(_LONGEST_WORD)[0][np.minimum(within, _LONGEST_WORD - 1)]
    hashes[letters[firsts]] = np.add.reduceat(hashes[letters] * powers, firsts)
    ends[letters[firsts]] = ends[letters[np.append(firsts[1:], len(letters)) - 1]]
    found = Tokens(hashes, places, ends, of)
    if not goes_on.any():
        return found
    keep = np.ones(len(places), bool)
    keep[letters[goes_on]] = False
    return found.only(keep)


def windows(hashes: Hashes, size: int) -> Hashes:
    """Returns a 64-bit hash of each window of `size` values, (len(hashes) - size + 1,); empty with fewer values.

    This is a polynomial in an odd base modulo 2^64, as in Rabin-Karp, with the high bits folded onto the low ones.
    """
    return _mixed(_polynomials(hashes, size)) if len(hashes) >= size else np.zeros(0, np.uint64)


def stretch_hashes(hashes: Hashes, starts: Places, ends: Places) -> Hashes:
    """Returns a 64-bit hash of each range `hashes[starts[i]:ends[i]]`, (len(starts),); 0 for an empty range."""
    powers, inverses = _powers(1 << len(hashes).bit_length())
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * powers[: len(hashes)], out=sums[1:])
    return _mixed((sums[ends] - sums[starts]) * inverses[starts])


def _polynomials(hashes: Hashes, size: int) -> Hashes:
    """Returns, for every window, the polynomial with its `size` values as coefficients, from half as long windows."""
    if size == 1:
        return hashes.copy()
    half = size // 2
    halves = _polynomials(hashes, half)
    joined = halves[:-half] * np.uint64(pow(_BASE, half, 2**64))
    joined += halves[half:]
    if size % 2:
        joined = joined[:-1]
        joined *= np.uint64(_BASE)
        joined += hashes[size - 1 :]
    return joined


def _mixed(hashes: Hashes) -> Hashes:
    hashes ^= hashes >> np.uint64(29)
    hashes *= np.uint64(_BASE)
    hashes ^= hashes >> np.uint64(32)
    return hashes


def _spread(codes: NDArray[np.uint32]) -> Hashes:
    found = (codes.astype(np.uint64) + np.uint64(1)) * np.uint64(_BASE)
    found ^= found >> np.uint64(32)
    return found


@cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Returns the first `count` powers of the base, and of its inverse modulo 2^64, (count,) each."""
    bases = (np.full(count, base, np.uint64) for base in (_BASE, _INVERSE))
    powers, inverses = (np.cumprod(np.append(np.uint64(1), base[1:])) for base in bases)
    return powers, inverses


@cache
def _tables() -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Returns, for every code point below 2^16, the code point that it is compared as, and its kind, (2^16,) each."""
    folded, kinds = np.arange(_BMP, dtype=np.uint32), np.full(_BMP, HAN, np.uint8)
    for code in (*range(_IDEOGRAPHS[0]), *range(_IDEOGRAPHS[1], _BMP), *map(ord, _FUNCTION + _MARKS)):
        letter = chr(code - _TO_FULL_WIDTH if _FULL_WIDTH[0] <= code < _FULL_WIDTH[1] else code)
        lower = letter.lower()
        folded[code], kinds[code] = ord(lower if len(lower) == 1 else letter), _kind(letter)
    return folded, kinds


def _kind(letter: str) -> int:
    category = unicodedata.category(letter)
    if letter in _JOINTS:
        return JOINT
    if letter in _FUNCTION:
        return FUNCTION
    if letter in _MARKS or (category == "Sm" and letter != "|") or category in ("No", "Nl", "Sc"):
        return MARK
    if category == "Nd":
        return DIGIT
    if category[0] in "LM":
        return HAN if ord(letter) >= _NO_WORDS else LETTER
    return NOTHING
