"""The plots of the HTML report: bars with intervals and marks on a scale, with positions in percent of the axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evals.report.tables import Results

_COLORS = 8


@dataclass(frozen=True)
class Bar:
    """One value with its interval."""

    label: str
    model: str
    color: int
    """Index of the model's color, 0 to 7."""
    value: str
    """The value as printed."""
    at: float
    """The value's position, in percent of the axis; so are `low` and `high`."""
    low: float
    high: float
    filled: bool
    """Whether to draw a bar from the left end; otherwise a mark at the value."""


@dataclass(frozen=True)
class Plot:
    """One chart: labeled values on a common axis."""

    title: str
    hint: str
    ticks: list[tuple[float, str]]
    bars: list[Bar]
    line: float | None = None
    """Position of a dashed line, e.g. chance, in percent of the axis; None for no line."""

    @property
    def groups(self) -> list[tuple[str, list[Bar]]]:
        """Bars grouped by label, in order."""
        found: dict[str, list[Bar]] = {}
        for bar in self.bars:
            found.setdefault(bar.label, []).append(bar)
        return list(found.items())


def choice_plots(task: str, results: Results) -> list[Plot]:
    """Plots accuracy by subject for every method and number of examples, and how often each letter was chosen."""
    plots = []
    for method in ("likelihood", "generation"):
        shots = next(
            (list(r["tasks"][task][method]) for r in results.values() if method in r["tasks"].get(task, {})), []
        )
        for shot in shots:
            bars, chance = [], None
            for color, (model, result) in enumerate(results.items()):
                scores = result["tasks"].get(task, {}).get(method, {}).get(shot)
                if not scores:
                    continue
                chance = 100 * scores["chance"]
                rows = {"all": scores, **scores["by_subject"]}
                for subject, values in rows.items():
                    name = subject.replace("_", " ")
                    bars.append(_bar(name, model, color, values["accuracy"], values["accuracy_interval"], 0, 1))
            if bars:
                hint = "Share right, with its 95 % interval; the dashed line is guessing."
                plots.append(Plot(f"{method}, {shot.replace('_', ' ')}", hint, _PERCENT, bars, chance))
    return [*plots, *_letter_plots(task, results)]


def scale_plots(task: str, results: Results) -> list[Plot]:
    """Plots each subscale's mean by method and model, on the scale's axis, and how often each letter was chosen."""
    plots = []
    for method in ("likelihood", "generation"):
        bars: list[Bar] = []
        ends = (1.0, 5.0)
        for color, (model, result) in enumerate(results.items()):
            values = result["tasks"].get(task, {})
            if method not in values:
                continue
            for name, each in values[method]["subscales"].items():
                title = values["titles"][name]
                ends = tuple(each["ends"])
                label = f"{name.replace('_', ' ')} {title['title']} (high: {title['high']})"
                if each["mean"] is not None:
                    bars.append(_bar(label, model, color, each["mean"], each["interval"], *ends, filled=False))
        if bars:
            middle = sum(ends) / 2
            ticks = [(100 * (v - ends[0]) / (ends[1] - ends[0]), f"{v:g}") for v in (ends[0], middle, ends[1])]
            hint = "Mean of the items with its 95 % interval; the dashed line is neither agreement nor disagreement."
            plots.append(Plot(f"by {method}", hint, ticks, bars, 50.0))
    return [*plots, *_letter_plots(task, results)]


_PERCENT = [(0.0, "0"), (50.0, "50"), (100.0, "100 %")]


def _letter_plots(task: str, results: Results) -> list[Plot]:
    """Plots the share of each letter when every option was shown under every letter: equal without a preference."""
    bars, even = [], None
    for color, (model, result) in enumerate(results.items()):
        letters = _rotated_letters(result["tasks"].get(task, {}))
        for letter, share in letters.items():
            even = 100 / len(letters)
            bars.append(_bar(letter, model, color, share, None, 0, 1))
    if not bars:
        return []
    hint = "Share of all choices under rotation, by log-likelihood; the dashed line is no preference."
    return [Plot("letters chosen", hint, _PERCENT, bars, even)]


def _rotated_letters(values: Mapping[str, Any]) -> Mapping[str, float]:
    by_likelihood = values.get("likelihood", {})
    if "letters" in by_likelihood:
        return dict(by_likelihood["letters"])
    first: Mapping[str, Any] = next(iter(by_likelihood.values()), {})
    return dict(first.get("rotation", {}).get("letters", {}))


def _bar(
    label: str,
    model: str,
    color: int,
    value: float,
    interval: list[float] | None,
    least: float,
    most: float,
    filled: bool = True,
) -> Bar:
    def at(x: float) -> float:
        return round(100 * (x - least) / (most - least), 2)

    low, high = interval or [value, value]
    told = f"{100 * value:.1f}" if filled else f"{value:.2f}"
    return Bar(label, model, color % _COLORS, told, at(value), at(low), at(high), filled)
