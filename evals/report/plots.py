"""The plots of the HTML report: accuracies and subscales with intervals, and how often each letter was chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from evals.report.tables import Results, fixed
from reporting.charts import Bar, BarChart
from reporting.scale import Scale

_METHODS = ("likelihood", "generation")
_SHARES = Scale(0.0, 1.0)
_PERCENT = [(0.0, "0"), (50.0, "50"), (100.0, "100%")]


def choice_plots(task: str, results: Results) -> list[BarChart]:
    """Plots accuracy by subject for every method and number of examples, and how often each letter was chosen."""
    plots = []
    for method in _METHODS:
        by_model = [(color, model, values.get(method, {})) for color, model, values in _of_task(task, results)]
        for shot in next((list(shots) for *_, shots in by_model if shots), []):
            bars, chance = [], None
            for color, model, shots in by_model:
                if not (scores := shots.get(shot)):
                    continue
                chance = scores["chance"]
                for subject, values in {"all": scores, **scores["by_subject"]}.items():
                    accuracy, interval = values["accuracy"], _pair(values["accuracy_interval"])
                    label = subject.replace("_", " ")
                    bars.append(Bar(label, accuracy, fixed(100 * accuracy, 1), model, color, interval))
            hint = "Accuracy in percent, with its 95% interval; the dashed line is random guessing."
            plots.append(BarChart(f"{method}, {shot.replace('_', ' ')}", hint, bars, _SHARES, _PERCENT, chance))
    return [*plots, *_letter_plots(task, results)]


def scale_plots(task: str, results: Results) -> list[BarChart]:
    """Plots each subscale's mean by method and model, on the scale's axis, and how often each letter was chosen."""
    plots = []
    for method in _METHODS:
        bars: list[Bar] = []
        scale = Scale(1.0, 5.0)
        for color, model, values in _of_task(task, results):
            for name, each in values.get(method, {}).get("subscales", {}).items():
                title, mean = values["titles"][name], each["mean"]
                scale = Scale(*each["ends"])
                label = f"{name.replace('_', ' ')} {title['title']} (high: {title['high']})"
                if mean is not None:
                    bars.append(Bar(label, mean, fixed(mean, 2), model, color, _pair(each["interval"])))
        if bars:
            middle = (scale.low + scale.high) / 2
            ticks = [(scale.percent(value), f"{value:g}") for value in (scale.low, middle, scale.high)]
            hint = "Mean of the items with its 95% interval; the dashed line is neither agreement nor disagreement."
            plots.append(BarChart(f"by {method}", hint, bars, scale, ticks, middle, filled=False))
    return [*plots, *_letter_plots(task, results)]


def _letter_plots(task: str, results: Results) -> list[BarChart]:
    """Plots each letter's share of the choices when every option is shown under every letter.

    All shares are equal if the model does not prefer any letter.
    """
    bars, even = [], None
    for color, model, values in _of_task(task, results):
        letters = _rotated_letters(values)
        for letter, share in letters.items():
            even = 1 / len(letters)
            bars.append(Bar(letter, share, fixed(100 * share, 1), model, color))
    hint = "Share of each letter in all choices under rotation, by log-likelihood, in percent; the dashed line is no preference."
    return [BarChart("letters chosen", hint, bars, _SHARES, _PERCENT, even)] if bars else []


def _rotated_letters(values: Mapping[str, Any]) -> Mapping[str, float]:
    by_likelihood = values.get("likelihood", {})
    if "letters" in by_likelihood:
        return dict(by_likelihood["letters"])
    first: Mapping[str, Any] = next(iter(by_likelihood.values()), {})
    return dict(first.get("rotation", {}).get("letters", {}))


def _of_task(task: str, results: Results) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Yields the color and name of each model, and its results of the task."""
    for color, (model, result) in enumerate(results.items()):
        yield color, model, result["tasks"].get(task, {})


def _pair(interval: list[float] | None) -> tuple[float, float] | None:
    return (interval[0], interval[1]) if interval and all(map(math.isfinite, interval)) else None
