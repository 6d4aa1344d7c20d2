"""ROUGE-1, ROUGE-2, and ROUGE-L on characters.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004). Chinese has no spaces between words, so every
character is a token; whitespace is not a token. F is the harmonic mean of precision and recall (beta = 1), as in the
`rouge-score` package, which gives the same results on space-separated characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def rouge(answer: str, reference: str) -> dict[str, float]:
    """Returns `rouge_1`, `rouge_2`, and `rouge_l` of a response, F scores from 0 to 1."""
    a, b = "".join(answer.split()), "".join(reference.split())
    return {
        "rouge_1": _ngram_f(a, b, 1),
        "rouge_2": _ngram_f(a, b, 2),
        "rouge_l": _f(longest_common_subsequence(a, b), len(a), len(b)),
    }


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence.

    The algorithm is bit-parallel: one integer holds a row of the dynamic program, and bit i of `row` is 0 where the
    length grows at a[i]. See Hyyrö, "Bit-parallel LCS-length computation revisited" (2004).
    """
    places: dict[str, int] = {}
    for position, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << position
    every = (1 << len(a)) - 1
    row = every
    for item in b:
        matches = row & places.get(item, 0)
        row = ((row + matches) | (row - matches)) & every
    return len(a) - row.bit_count()


def _ngram_f(a: str, b: str, n: int) -> float:
    of_a, of_b = (Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in (a, b))
    return _f((of_a & of_b).total(), of_a.total(), of_b.total())


def _f(common: int, of_answer: int, of_reference: int) -> float:
    """Returns 2PR / (P + R) with P = common / of_answer and R = common / of_reference."""
    return 2 * common / (of_answer + of_reference) if common else 0.0
