"""BLEU-1, BLEU-2 and chrF on characters, in percent; and BLEU as published scripts compute it, under a name that says so.

BLEU after Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation" (2002), over a whole corpus,
unsmoothed; chrF after Popović, "chrF: character n-gram F-score for automatic MT evaluation" (2015): character n-grams up
to 6, beta 2. Both are sacrebleu's. Chinese has no spaces between words, so a token is a character; white space is none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from sacrebleu.metrics import BLEU, CHRF


def bleu(answers: Sequence[str], references: Sequence[str], order: int) -> float:
    """Corpus BLEU on characters with n-grams up to `order`, 0 to 100."""
    score = BLEU(tokenize="char", max_ngram_order=order, smooth_method="none")
    return float(score.corpus_score(list(answers), [list(references)]).score)


def chrf(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF, 0 to 100."""
    return float(CHRF().corpus_score(list(answers), [list(references)]).score)


def script_like_bleu(answers: Sequence[str], references: Sequence[str], order: int) -> float:
    """What scripts report that put a space after every character and give BLEU the string, 0 to 100.

    BLEU then takes the string's items for tokens, and every second one is a space: half of any two texts agrees. It is
    the mean of the answers' own scores, without smoothing, as such scripts take it. For comparison with published
    figures only; `bleu` is the right one.
    """
    pairs = zip(answers, references, strict=True)
    return 100 * fmean(_sentence_bleu(_spaced(answer), _spaced(reference), order) for answer, reference in pairs)


def _spaced(text: str) -> str:
    return " ".join("".join(text.split()))


def _sentence_bleu(answer: str, reference: str, order: int) -> float:
    """BP * exp(mean of log p_n), n to `order`; the strings' items are the tokens. Papineni et al., section 2.3."""
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
