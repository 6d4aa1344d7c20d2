from __future__ import annotations

from typing import Any

from evals.report.plots import choice_plots, scale_plots
from reporting.charts import Bar
from reporting.scale import Scale


def test_accuracy_and_letters_of_every_model(results: dict[str, Any]) -> None:
    likelihood, generation, letters = choice_plots("cmmlu", results["models"])
    assert [plot.title for plot in (likelihood, generation)] == ["likelihood, 0 shot", "generation, 0 shot"]
    interval = results["models"]["knows"]["tasks"]["cmmlu"]["likelihood"]["0_shot"]["accuracy_interval"]
    assert likelihood.bars[0] == Bar("all", 12 / 13, "92.3", "knows", 0, tuple(interval))
    assert [(bar.label, bar.text, bar.color) for bar in likelihood.bars[2:]] == [
        ("all", "23.1", 1),
        ("骨科", "23.1", 1),
    ]
    assert (likelihood.line, likelihood.filled) == (0.25, True)
    assert {label: [bar.text for bar in bars] for label, bars in letters.groups.items()}["A"] == ["25.0", "100.0"]
    assert letters.line == 0.25


def test_subscales_lie_on_the_scales_axis(results: dict[str, Any]) -> None:
    likelihood, *_ = scale_plots("cami", results["models"])
    assert (likelihood.scale, likelihood.line, likelihood.filled) == (Scale(1.0, 5.0), 3.0, False)
    assert likelihood.ticks == [(0.0, "1"), (50.0, "3"), (100.0, "5")]
    assert {bar.text for bar in likelihood.bars if bar.name == "knows"} == {"3.00"}
