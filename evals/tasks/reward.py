"""Mean reward of sampled answers to held-out prompts: what PPO is to raise."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from evals.models.subject import Metrics, Row, Subject


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """`mean` and `std` of the rewards of all samples, `unfinished`: share of answers cut off at the allowed length,
    `answer_tokens`: their mean length.

    Prompt and answer are scored as they were sampled: with the end mark if the model wrote it, without if not.

    Raises RuntimeError without a reward model.
    """
    if subject.reward is None:
        raise RuntimeError("the reward task was started without a reward model")
    samples = subject.samples(rows)
    rewards = subject.reward.score([sample.ids for sample in samples])
    return {
        "mean": fmean(rewards),
        "std": pstdev(rewards),
        "unfinished": fmean(not sample.answer.finished for sample in samples),
        "answer_tokens": fmean(len(sample.answer.ids) for sample in samples),
        "prompts": len(rows),
        "n": len(samples),
    }
