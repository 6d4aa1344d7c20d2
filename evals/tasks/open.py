"""Open questions: the similarity of the greedy response to a reference, on characters."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from data.chat import encode_prompt
from evals.metrics.overlap import overlap
from evals.models.subject import Metrics, Row, Subject

SHOWN = 3
"""Number of responses that the results contain."""


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """Returns the metrics of `overlap`; `unfinished`, the share of truncated responses; and the first `samples`."""
    tokenizer, settings = subject.folder.tokenizer, subject.settings
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": row["question"]}]) for row in rows]
    answers = subject.engine.generate(prompts, settings.open_tokens, label="open questions")
    scores = overlap([answer.text for answer in answers], [row["reference"] for row in rows])
    return {
        **scores,
        "unfinished": fmean(not answer.finished for answer in answers),
        "samples": [
            {"question": row["question"], "reference": row["reference"], "answer": answer.text}
            for row, answer in list(zip(rows, answers, strict=True))[:SHOWN]
        ],
    }
