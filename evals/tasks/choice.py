"""Choice questions by log-likelihood: each option is scored as the answer to the question, the likeliest one counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from data.chat import chat_format
from data.choices.question import LETTERS
from data.tables import DataError
from evals.models.subject import Metrics, Row, Subject


def check(row: Row) -> None:
    """Refuse a question that has no single right answer.

    Raises:
        DataError: fewer than two options, an empty or repeated one, or an answer outside of them.
    """
    options = [option.strip() for option in row["options"]]
    if not row["question"].strip():
        raise DataError("question is empty; fill it or drop the row")
    if not 2 <= len(options) <= len(LETTERS):
        raise DataError(f"has {len(options)} options; give 2 to {len(LETTERS)}")
    if not all(options) or len(set(options)) < len(options):
        raise DataError("an option is empty or given twice; mend the question or drop it")
    if not 0 <= row["answer"] < len(options):
        raise DataError(f"answer {row['answer']} is outside its options 0 to {len(options) - 1}; mend it")


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """`accuracy`, the primary one, by the mean log-likelihood of an option's tokens and end mark, which does not favor
    short options; `accuracy_sum` by their sum, the probability that the model answers just that; each also by subject.

    `chance` is what guessing gives; `letters` says how often each position was chosen, `answers` how often it is right.
    """
    form = chat_format(subject.folder.tokenizer)
    encoded = [form.response(_chat(row["question"], option)) for row in rows for option in row["options"]]
    scores = subject.engine.score([prompt + option for prompt, option in encoded], label="choice questions")
    answers = [score[-len(option) :] for score, (_, option) in zip(scores, encoded, strict=True)]
    picks = pick_options(answers, [len(row["options"]) for row in rows])
    return choice_metrics(rows, picks)


def pick_options(answers: Sequence[Sequence[float]], options: Sequence[int]) -> list[tuple[int, int]]:
    """For each question the option of highest mean and of highest summed log-likelihood; the first one of equals.

    Args:
        answers: the log-probabilities of each option's tokens, all options of all questions in order.
        options: how many options each question has.
    """
    picks, start = [], 0
    for count in options:
        own = answers[start : start + count]
        start += count
        picks.append((_argmax([fmean(option) for option in own]), _argmax([sum(option) for option in own])))
    return picks


def choice_metrics(rows: Sequence[Row], picks: Sequence[tuple[int, int]]) -> Metrics:
    """The metrics of `evaluate` from the options picked by mean and by sum."""
    by_subject: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for row, (by_mean, by_sum) in zip(rows, picks, strict=True):
        by_subject[row["subject"]].append((by_mean == row["answer"], by_sum == row["answer"]))
    width = max(len(row["options"]) for row in rows)
    return {
        **_accuracies([right for rights in by_subject.values() for right in rights]),
        "chance": fmean(1 / len(row["options"]) for row in rows),
        "by_subject": {name: _accuracies(rights) for name, rights in sorted(by_subject.items())},
        "letters": {LETTERS[i]: sum(pick == i for pick, _ in picks) for i in range(width)},
        "answers": {LETTERS[i]: sum(row["answer"] == i for row in rows) for i in range(width)},
    }


def _accuracies(rights: Sequence[tuple[bool, bool]]) -> Metrics:
    return {
        "accuracy": fmean(by_mean for by_mean, _ in rights),
        "accuracy_sum": fmean(by_sum for _, by_sum in rights),
        "n": len(rights),
    }


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _chat(question: str, option: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": option}]
