"""Perplexity of held-out pretraining text, by token and by character."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evals.models.subject import Metrics, Row, Subject


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """See `perplexities`. A text is encoded as in pretraining: its tokens and the end mark, nothing before them.

    A text longer than the context is cut into windows, each read on its own, as pretraining's blocks are.
    """
    tokenizer, window = subject.folder.tokenizer, subject.engine.context - 1
    documents = [
        [*tokenizer.encode(row["text"], add_special_tokens=False, verbose=False), tokenizer.eos_token_id]
        for row in rows
    ]
    windows = [ids[start : start + window] for ids in documents for start in range(0, len(ids), window)]
    scores = subject.engine.score(windows, label="held-out text")
    # A window's first token is not predicted, so its characters are not counted either.
    characters = sum(len(tokenizer.decode(ids[1:], skip_special_tokens=True)) for ids in windows)
    return perplexities(scores, characters) | {"n": len(rows)}


def perplexities(scores: Sequence[Sequence[float]], characters: int) -> Metrics:
    """`perplexity` = exp(mean negative log-likelihood of a token), over all tokens of all texts alike, and
    `perplexity_per_character` = exp(total negative log-likelihood / characters), which two tokenizers share.
    """
    tokens = sum(len(score) for score in scores)
    total = -sum(sum(score) for score in scores)
    return {
        "perplexity": math.exp(total / tokens),
        "perplexity_per_character": math.exp(total / characters),
        "tokens": tokens,
        "characters": characters,
    }
