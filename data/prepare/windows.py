"""Texts as the windows of n characters in them: repetition, likeness (MinHash) and overlap with evaluation items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

Hashes = NDArray[np.uint64]
Signatures = NDArray[np.uint32]  # (N, PERMUTATIONS)

PERMUTATIONS: Final = 128
SHINGLE: Final = 5
REPETITION: Final = 10
SIGNATURE_BYTES: Final = 4 * PERMUTATIONS
_SEED: Final = 1
_BASE: Final = 0x9E3779B97F4A7C15
_MODULUS: Final = 2**64
_NOT_WORDS: Final = (
    "".join(chr(code) for code in range(128) if not chr(code).isalnum())
    + "\u3000，。、；：？！“”‘’（）《》【】〈〉「」『』—…·～￥"
)
_STRIPPED: Final = str.maketrans("", "", _NOT_WORDS)


def window_hashes(text: str, size: int) -> Hashes:
    """A 64-bit hash of every window of `size` characters, (len(text) - size + 1,); of a shorter text, of all of it.

    A polynomial in an odd base modulo 2^64, as Rabin and Karp's, with the high bits folded onto the low ones.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    if not len(codes):
        return codes
    hashes = _polynomials(codes, min(size, len(codes)))
    hashes ^= hashes >> np.uint64(29)
    hashes *= np.uint64(_BASE)
    hashes ^= hashes >> np.uint64(32)
    return hashes


def _polynomials(codes: Hashes, size: int) -> Hashes:
    """Of every window, the polynomial whose coefficients are its `size` codes; from those of windows half as long."""
    if size == 1:
        return codes.copy()
    half = size // 2
    halves = _polynomials(codes, half)
    joined = halves[:-half] * np.uint64(pow(_BASE, half, _MODULUS))
    joined += halves[half:]
    if size % 2:
        joined = joined[:-1]
        joined *= np.uint64(_BASE)
        joined += codes[size - 1 :]
    return joined


def repeated_share(text: str) -> float:
    """The share of a text's windows of ten characters that came before in it; 0 for short texts.

    In the spirit of the repetition filters of Rae et al. 2021 (Gopher, appendix A.1.1), for text without spaces.
    """
    if len(text) < 10 * REPETITION:
        return 0.0
    hashes = np.sort(window_hashes(text, REPETITION))
    return int((hashes[1:] == hashes[:-1]).sum()) / len(hashes)


def signatures(texts: Sequence[str]) -> Signatures:
    """The MinHash (Broder 1997) of each text's five-character shingles."""
    padded = [text.ljust(SHINGLE, "\0") for text in texts]  # each has a window of its own
    ends = np.cumsum([len(text) for text in padded])
    hashes = window_hashes("".join(padded), SHINGLE)
    within = np.ones(ends[-1], bool)
    for place in range(1, SHINGLE):
        within[ends - place] = False  # windows that begin here go on in the next text
    counts = np.diff(ends, prepend=0) - (SHINGLE - 1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    found = RMinHash.digest_matrix_from_flat_token_hashes(hashes[within[: len(hashes)]], offsets, PERMUTATIONS, _SEED)
    return np.array(found.to_rows(), np.uint32)


def bands(threshold: float) -> tuple[int, int]:
    """`(bands, rows)` of an index that finds pairs from `threshold` on, missing one being worse than one too many.

    The least weighted error among all that `PERMUTATIONS` allow: the probability of becoming a candidate,
    1 - (1 - s^rows)^bands (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4.2), added up over the likeness s
    below the threshold, and what is wanting to 1, nine times as heavy, above it.
    """
    likeness = (np.arange(1000) + 0.5) / 1000
    weights = np.where(likeness < threshold, 0.1, 0.9)

    def error(choice: tuple[int, int]) -> float:
        count, width = choice
        candidate = 1 - (1 - likeness**width) ** count
        return float((weights * np.where(likeness < threshold, candidate, 1 - candidate)).sum())

    sizes = range(1, PERMUTATIONS + 1)
    return min((choice for choice in product(sizes, sizes) if choice[0] * choice[1] <= PERMUTATIONS), key=error)


class Evaluation:
    """The n-grams of evaluation items, to be found in rows.

    As in GPT-3's decontamination (Brown et al. 2020, appendix C), one shared n-gram is enough; here of characters,
    punctuation and blanks left out.
    """

    def __init__(self, ngram: int, hashes: Hashes, items: int = 0, short: int = 0) -> None:
        self.ngram, self.hashes, self.items, self.short = ngram, hashes, items, short

    @classmethod
    def of_texts(cls, texts: Iterable[str], ngram: int) -> Evaluation:
        """`short` of the `items` have fewer than `ngram` characters: they cannot be looked for."""
        found, items, short = [np.zeros(0, np.uint64)], 0, 0
        for text in texts:
            words = text.translate(_STRIPPED)
            items += 1
            if len(words) < ngram:
                short += 1
            else:
                found.append(window_hashes(words, ngram))
        return cls(ngram, np.unique(np.concatenate(found)), items, short)

    def shared(self, text: str) -> str:
        """The first n-gram that the text shares with an evaluation item, or nothing."""
        words = text.translate(_STRIPPED)
        if not len(self.hashes) or len(words) < self.ngram:
            return ""
        hashes = window_hashes(words, self.ngram)
        places = np.searchsorted(self.hashes, hashes)
        hits = self.hashes[np.minimum(places, len(self.hashes) - 1)] == hashes
        first = int(hits.argmax())
        return words[first : first + self.ngram] if hits[first] else ""
