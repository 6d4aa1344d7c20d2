"""Character-level BLEU-1, BLEU-2, and chrF, in percent; and `script_like_bleu`, the variant of some published scripts.

BLEU follows Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation" (2002), corpus-level and
unsmoothed; chrF follows Popović, "chrF: character n-gram F-score for automatic MT evaluation" (2015), with character
n-grams up to 6 and beta 2. Both are computed by sacrebleu. Chinese has no spaces between words, so every character is a
token; whitespace is not a token.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from sacrebleu.metrics import BLEU, CHRF


def bleu(answers: Sequence[str], references: Sequence[str], order: int) -> float:
    """Returns corpus BLEU on characters with n-grams up to `order`, 0 to 100."""
    score = BLEU(tokenize="char", max_ngram_order=order, smooth_method="none")
    return float(score.corpus_score(list(answers), [list(references)]).score)


def chrf(answers: Sequence[str], references: Sequence[str]) -> float:
    """Returns corpus chrF, 0 to 100."""
    return float(CHRF().corpus_score(list(answers), [list(references)]).score)


def script_like_bleu(answers: Sequence[str], references: Sequence[str], order: int) -> float:
    """Returns BLEU as computed by scripts that insert spaces between characters and pass BLEU the string, 0 to 100.

    BLEU then treats every character of the string as a token, and every second one is a space, so half of any two texts
    match. As in such scripts, the result is the mean of sentence scores without smoothing. Use it only for comparison
    with published results; the correct metric is `bleu`.
    """
    pairs = zip(answers, references, strict=True)
    return 100 * fmean(_sentence_bleu(_spaced(answer), _spaced(reference), order) for answer, reference in pairs)


def _spaced(text: str) -> str:
    return " ".join("".join(text.split()))


def _sentence_bleu(answer: str, reference: str, order: int) -> float:
    """Returns BP * exp(mean over n of log p_n), n = 1 to `order`, with characters as tokens.

    BP is the brevity penalty and p_n the n-gram precision; see Papineni et al. (2002), section 2.3.
    """
    if not answer:
        return 0.0
    logs = []
    for n in range(1, order + 1):
        of_answer, of_reference = _ngrams(answer, n), _ngrams(reference, n)
        matched = (of_answer & of_reference).total()
        if not matched:
            return 0.0
        logs.append(math.log(matched / of_answer.total()))
    brevity = min(0.0, 1 - len(reference) / len(answer))
    return math.exp(brevity + fmean(logs))


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[start : start + n] for start in range(len(text) - n + 1))
