"""Mean reward of sampled responses to held-out prompts, which PPO maximizes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from evals.models.subject import Metrics, Row, Subject


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """Scores sampled responses with the reward model.

    Prompt and response are scored as sampled: with the end-of-turn token only if the model generated it.

    Returns:
        `mean` and `std` of the rewards of all samples; `unfinished`, the share of responses truncated at the length
        limit; `response_tokens`, the mean response length; `prompts`, the number of prompts; `n`, the number of samples.

    Raises:
        RuntimeError: there is no reward model.
    """
    if subject.reward is None:
        raise RuntimeError("the reward task was started without a reward model")
    samples = subject.samples(rows)
    rewards = subject.reward.score([sample.ids for sample in samples])
    return {
        "mean": fmean(rewards),
        "std": pstdev(rewards),
        "unfinished": fmean(not sample.answer.finished for sample in samples),
        "response_tokens": fmean(len(sample.answer.ids) for sample in samples),
        "prompts": len(rows),
        "n": len(samples),
    }
