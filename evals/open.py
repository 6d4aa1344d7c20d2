"""Open questions: the greedy answer against a reference, by character-level ROUGE."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from data.chat import encode_prompt
from evals.rouge import rouge
from evals.subject import Metrics, Row, Subject


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """`rouge_1`, `rouge_2`, `rouge_l`: means over questions; `length_ratio`: characters of all answers by those of all
    references; `unfinished`: share of answers cut off; `empty`: answers without a character, which score 0.
    """
    tokenizer, settings = subject.folder.tokenizer, subject.settings
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": row["question"]}]) for row in rows]
    answers = subject.engine.generate(prompts, settings.open_tokens, label="open questions")
    texts, references = [answer.text.strip() for answer in answers], [row["reference"].strip() for row in rows]
    scores = [rouge(text, reference) for text, reference in zip(texts, references, strict=True)]
    return {
        **{name: fmean(score[name] for score in scores) for name in ("rouge_1", "rouge_2", "rouge_l")},
        "length_ratio": sum(map(len, texts)) / sum(map(len, references)),
        "unfinished": fmean(not answer.finished for answer in answers),
        "empty": sum(not text for text in texts),
        "n": len(rows),
    }
