"""Texts as the windows of n characters in them: repetition, likeness (MinHash) and overlap with evaluation items."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasketch import MinHash

Hashes = NDArray[np.uint64]

PERMUTATIONS: Final = 128
SHINGLE: Final = 5
REPETITION: Final = 10
SIGNATURE_BYTES: Final = 4 * PERMUTATIONS
_BATCH: Final = 1024  # shingles a time: their permutations stay in the processor's cache
_BASE: Final = np.uint64(0x9E3779B97F4A7C15)
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
    size = max(1, min(size, len(codes)))
    count = len(codes) - size + 1
    hashes = np.zeros(max(count, 0), np.uint64)
    for offset in range(size):
        hashes *= _BASE
        hashes += codes[offset : offset + count]
    hashes ^= hashes >> np.uint64(29)
    hashes *= _BASE
    return hashes ^ (hashes >> np.uint64(32))


def repeated_share(text: str) -> float:
    """The share of a text's windows of ten characters that came before in it; 0 for short texts.

    In the spirit of the repetition filters of Rae et al. 2021 (Gopher, appendix A.1.1), for text without spaces.
    """
    if len(text) < 10 * REPETITION:
        return 0.0
    hashes = np.sort(window_hashes(text, REPETITION))
    return int((hashes[1:] == hashes[:-1]).sum()) / len(hashes)


def signature(text: str) -> bytes:
    """The MinHash (Broder 1997) of a text's five-character shingles: `PERMUTATIONS` uint32, little endian."""
    shingles = (window_hashes(text, SHINGLE) >> np.uint64(32)).astype(np.uint32)  # with repeats: a minimum is the same
    minhash = _empty().copy()
    for start in range(0, len(shingles), _BATCH):
        minhash.update_batch(shingles[start : start + _BATCH].tolist())
    return bytes(minhash.hashvalues.astype("<u4").tobytes())


def bands(threshold: float) -> tuple[int, int]:
    """`(bands, rows)` of an index that finds pairs from `threshold` on, missing one being worse than one too many."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=(0.1, 0.9))
    return index.b, index.r


@cache
def _empty() -> MinHash:
    from datasketch import MinHash  # brings scipy, seconds to import: not for who switches the step off

    return MinHash(num_perm=PERMUTATIONS, hashfunc=int)  # shingles are hashes already


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
