"""Choice questions by log-likelihood: each option is scored as the response, and the most likely one is chosen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from data.chat import chat_format
from data.choices.question import LETTERS
from data.tables import DataError
from evals.models.subject import Metrics, Row, Subject


def check(row: Row) -> None:
    """Rejects a question that is empty or whose options or answer are invalid.

    Raises:
        DataError: the question is empty, there are too few or too many options, an option is empty or repeated, or the
            answer is not the index of an option.
    """
    options = [option.strip() for option in row["options"]]
    if not row["question"].strip():
        raise DataError("question is empty; fill it or drop the row")
    if not 2 <= len(options) <= len(LETTERS):
        raise DataError(f"has {len(options)} options; give 2 to {len(LETTERS)}")
    if not all(options) or len(set(options)) < len(options):
        raise DataError("an option is empty or given twice; repair the question or drop it")
    if not 0 <= row["answer"] < len(options):
        raise DataError(f"answer {row['answer']} is outside its options 0 to {len(options) - 1}; repair it")


def evaluate(subject: Subject, rows: Sequence[Row]) -> Metrics:
    """Evaluates a model on choice questions.

    Returns:
        - `accuracy`, the primary metric: the option with the highest mean log-likelihood of its tokens and end-of-turn
          token is chosen, which does not favor short options;
        - `accuracy_sum`: chosen by the sum instead, the log-probability that the response is exactly the option;
        - `by_subject`: both accuracies by subject;
        - `chance`: expected accuracy of guessing;
        - `letters` and `answers`: number of times each position was chosen (by mean), and is correct;
        - `n`: number of questions.
    """
    form = chat_format(subject.folder.tokenizer)
    encoded = [form.response(_chat(row["question"], option)) for row in rows for option in row["options"]]
    scores = subject.engine.score([prompt + option for prompt, option in encoded], label="choice questions")
    answers = [score[-len(option) :] for score, (_, option) in zip(scores, encoded, strict=True)]
    picks = pick_options(answers, [len(row["options"]) for row in rows])
    return choice_metrics(rows, picks)


def pick_options(answers: Sequence[Sequence[float]], options: Sequence[int]) -> list[tuple[int, int]]:
    """Returns, for each question, the options with the highest mean and with the highest summed log-likelihood.

    On ties, the first option is chosen.

    Args:
        answers: log-probabilities of each option's tokens, for all options of all questions, in order.
        options: number of options of each question.
    """
    picks, start = [], 0
    for count in options:
        own = answers[start : start + count]
        start += count
        picks.append((_argmax([fmean(option) for option in own]), _argmax([sum(option) for option in own])))
    return picks


def choice_metrics(rows: Sequence[Row], picks: Sequence[tuple[int, int]]) -> Metrics:
    """Computes the metrics of `evaluate` from the options chosen by mean and by sum."""
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
