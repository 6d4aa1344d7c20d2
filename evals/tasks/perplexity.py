"""Perplexity of held-out pretraining text, per token and per character."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evals.models.subject import Metrics, Row, Subject


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """Computes the perplexity of the rows' texts; see `perplexities`.

    As in pretraining, a text is encoded as its tokens and EOS, without a BOS token. A text that is longer than the
    context is split into windows that are scored independently, like the blocks of pretraining.
    """
    tokenizer, window = subject.folder.tokenizer, subject.engine.context - 1
    documents = [
        [*tokenizer.encode(row["text"], add_special_tokens=False, verbose=False), tokenizer.eos_token_id]
        for row in rows
    ]
    windows = [ids[start : start + window] for ids in documents for start in range(0, len(ids), window)]
    scores = subject.engine.score(windows, label="held-out text")
    # A window's first token has no log-probability, so its characters are not counted either.
    characters = sum(len(tokenizer.decode(ids[1:], skip_special_tokens=True)) for ids in windows)
    return perplexities(scores, characters) | {"n": len(rows)}


def perplexities(scores: Sequence[Sequence[float]], characters: int) -> Metrics:
    """Computes perplexities.

    Args:
        scores: for each window, the log-probabilities of its predicted tokens.
        characters: number of characters of all predicted tokens.

    Returns:
        - `perplexity` = exp(mean negative log-likelihood per token), over all tokens of all texts;
        - `perplexity_per_character` = exp(total negative log-likelihood / characters), comparable across tokenizers;
        - the counts `tokens` and `characters`.
    """
    tokens = sum(len(score) for score in scores)
    total = -sum(sum(score) for score in scores)
    return {
        "perplexity": math.exp(total / tokens),
        "perplexity_per_character": math.exp(total / characters),
        "tokens": tokens,
        "characters": characters,
    }
