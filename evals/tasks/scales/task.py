"""Attitude scales: measures a model's agreement with statements, separated from its preference for letters.

Every item is presented in several phrasings. In each phrasing, the points of agreement are assigned to the letters in
every rotation. A respondent that only prefers a letter then has the same middle score on every item, and `letters`
shows its preference. There is no total score, because subscales whose high ends have opposite meanings would cancel
out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from data.chat import Message
from data.choices.question import LETTERS
from evals.metrics.intervals import mean_interval
from evals.models.respondent import Respondent
from evals.models.subject import Metrics, Settings
from evals.replies.letters import chosen_option
from evals.tasks.exam.questions import Question
from evals.tasks.exam.scoring import FAVORITE, Choice, likeliest
from evals.tasks.faults import EMPTY, TOO_LONG, UNTOLD, Fault, fault_counts
from evals.tasks.scales.schema import Item, Scale


@dataclass(frozen=True)
class Asked:
    """One item in one phrasing, with its points of agreement in one order."""

    item: Item
    phrasing: int
    question: Question

    @property
    def where(self) -> str:
        """A description of the question for the list of faults."""
        return f"item {self.item.id}, phrasing {self.phrasing + 1}, A is {self.question.options[0]}"

    def prompt(self, scale: Scale) -> str:
        """Returns the user's turn that asks the question."""
        options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, self.question.options, strict=False))
        return scale.phrasings[self.phrasing].replace("{options}", options).replace("{item}", self.item.text)


def all_asked(scale: Scale) -> list[Asked]:
    """Returns every item in every phrasing and rotation."""
    points = tuple(scale.points)
    return [
        Asked(item, phrasing, Question(item.id, item.subscale, item.text, points, 0).rotated(by))
        for item in scale.items
        for phrasing in range(len(scale.phrasings))
        for by in range(len(points))
    ]


def evaluate(model: Respondent, scale: Scale, settings: Settings) -> Metrics:
    """Evaluates a model on a scale.

    Returns:
        - `likelihood` and `generation`: the metrics of `scale_scores`, for each selected method;
        - each subscale's mean, under its name, and `no_answer`, both of the first method;
        - `faults`, `scale`, `titles`, `prompt` (an example), and `n`, the number of questions asked.
    """
    asked, faults, metrics = all_asked(scale), list[Fault](), dict[str, Metrics]()
    chats: list[list[Message]] = [[{"role": "user", "content": one.prompt(scale)}] for one in asked]
    fitting = [model.fits(chat, settings.choice_tokens) for chat in chats]
    faults += [Fault(TOO_LONG, one.where) for one, fits in zip(asked, fitting, strict=True) if not fits]
    usable = [(one, chat) for one, chat, fits in zip(asked, chats, fitting, strict=True) if fits]
    for method in settings.methods:
        label = f"{scale.name} by {method}"
        if method == "likelihood":
            weights = model.option_logprobs(
                [chat for _, chat in usable], [list(one.question.letters) for one, _ in usable], label
            )
            faults += [Fault(UNTOLD, one.where) for (one, _), own in zip(usable, weights, strict=True) if not own]
            found: list[Choice] = [likeliest(own) for own in weights]
        else:
            replies = model.answer([chat for _, chat in usable], settings.choice_tokens, label)
            pairs = list(zip(usable, replies, strict=True))
            faults += [Fault(r.problem or EMPTY, one.where) for (one, _), r in pairs if not r.text.strip()]
            found = [chosen_option(r.text, one.question.letters, one.question.options) for (one, _), r in pairs]
        answers = iter(found)
        metrics[method] = scale_scores(scale, asked, [next(answers) if fits else None for fits in fitting])
    first = metrics[settings.methods[0]]
    return {
        **{name: values["mean"] for name, values in first["subscales"].items()},
        "no_answer": first["no_answer"],
        **metrics,
        "faults": fault_counts(faults),
        "scale": {key: getattr(scale, key) for key in ("name", "source", "acknowledgement", "changes")},
        "titles": {name: {"title": each.title, "high": each.high} for name, each in scale.subscales.items()},
        "prompt": asked[0].prompt(scale),
        "n": len(asked),
    }


def scale_scores(scale: Scale, asked: Sequence[Asked], choices: Sequence[Choice]) -> Metrics:
    """Computes a scale's scores and the indicators of their validity.

    Args:
        scale: the scale.
        asked: the questions.
        choices: for each question, the chosen option.

    Returns:
        - `subscales`: see `_subscale`. The other values range from 0 to 1:
        - `no_answer`: share of questions without a choice;
        - `letters`: share of each letter among the choices; uniform without a preference;
        - `distance`: total variation distance of `letters` from uniform;
        - `favorite`: 1 if a letter's share is at least `FAVORITE`;
        - `same_answer`: share of (item, phrasing) pairs with the same point chosen in every rotation;
        - `phrasings_agree`: share of items whose mean is on the same side of the middle in every phrasing;
        - `opposites`: 1 - the mean distance, relative to the scale's width, between an item's mean and the mirrored
          mean of its opposite; None if there are no such pairs.
    """
    values = [
        None if choice is None else scale.points[one.question.options[choice]]
        for one, choice in zip(asked, choices, strict=True)
    ]
    by_item: dict[str, list[int | None]] = {item.id: [] for item in scale.items}
    by_phrasing: dict[tuple[str, int], list[int | None]] = {}
    for one, value in zip(asked, values, strict=True):
        by_item[one.item.id].append(value)
        by_phrasing.setdefault((one.item.id, one.phrasing), []).append(value)
    letters = Counter(choice for choice in choices if choice is not None)
    total, width = letters.total(), len(scale.points)
    shares = [letters[place] / total if total else 0.0 for place in range(width)]
    return {
        "subscales": {name: _subscale(scale, name, by_item) for name in scale.subscales},
        "no_answer": fmean(value is None for value in values),
        "letters": {LETTERS[place]: share for place, share in enumerate(shares)},
        "distance": sum(abs(share - 1 / width) for share in shares) / 2 if total else 0.0,
        "favorite": int(max(shares) >= FAVORITE),
        "same_answer": fmean(None not in own and len(set(own)) == 1 for own in by_phrasing.values()),
        "phrasings_agree": _phrasings_agree(scale, by_phrasing),
        "opposites": _opposites(scale, by_item),
    }


def _subscale(scale: Scale, name: str, by_item: dict[str, list[int | None]]) -> Metrics:
    """Computes the metrics of one subscale.

    Returns:
        - `mean` of the items' means, with its 95% `interval` over items; None if there are no answers;
        - `bounds`: the mean score of all questions if every missing answer had the lowest score, and the highest score;
        - `forward` and `reversed`: the means of forward and of reversed items, both after mirroring; for a respondent
          that agrees with everything, one is high and the other low;
        - `answered`: share of the questions with an answer;
        - `ends`: the lowest and highest possible mean;
        - `items`: number of items.
    """
    items = [item for item in scale.items if item.subscale == name]
    scores = {item.id: [scale.scored(item, v) for v in by_item[item.id] if v is not None] for item in items}
    means = {item: fmean(own) for item, own in scores.items() if own}
    asked, answered = sum(len(by_item[item.id]) for item in items), sum(map(len, scores.values()))
    total, missing = sum(map(sum, scores.values())), asked - answered

    def of(reverse: bool) -> float | None:
        own = [means[item.id] for item in items if item.reversed == reverse and item.id in means]
        return fmean(own) if own else None

    return {
        "mean": fmean(means.values()) if means else None,
        "interval": mean_interval(list(means.values())) if means else None,
        "bounds": [(total + missing * end) / asked for end in (scale.least, scale.most)],
        "forward": of(False),
        "reversed": of(True),
        "answered": answered / asked,
        "ends": [scale.least, scale.most],
        "items": len(items),
    }


def _phrasings_agree(scale: Scale, by_phrasing: dict[tuple[str, int], list[int | None]]) -> float:
    middle = (scale.least + scale.most) / 2
    sides: dict[str, set[int | None]] = {item.id: set() for item in scale.items}
    for (item, _), own in by_phrasing.items():
        known = [value for value in own if value is not None]
        mean = fmean(known) if known else None
        sides[item].add(None if mean is None else (mean > middle) - (mean < middle))
    return fmean(len(found) == 1 and None not in found for found in sides.values())


def _opposites(scale: Scale, by_item: dict[str, list[int | None]]) -> float | None:
    apart = []
    for one, other in scale.opposites:
        known = [[value for value in by_item[item] if value is not None] for item in (one, other)]
        if all(known):
            reversed_mean = scale.least + scale.most - fmean(known[1])
            apart.append(abs(fmean(known[0]) - reversed_mean) / (scale.most - scale.least))
    return 1 - fmean(apart) if apart else None
