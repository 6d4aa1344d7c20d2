"""Charts of a reward model's last held-out evaluation: the distribution of its scores, and its reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from configs.errors import ConfigError
from configs.recipe import short
from reporting.areas import draw_counts
from reporting.charts import Chart
from reporting.curves import Bin, draw_reliability
from reporting.formats import format_number

SECTION = "Preferences"
"""The section of these charts."""


class _Model(BaseModel):
    """Other keys of the file are for other readers."""

    model_config = ConfigDict(allow_inf_nan=False)


class _Bin(_Model):
    pairs: int
    confidence: float
    accuracy: float


class _Distribution(_Model):
    mean: float
    histogram: list[int]


class RewardEvaluation(_Model):
    """The `report` of an evaluation.json, as `trainers.supervised.reward_metrics.report` returns it."""

    pairs: int
    reliability: list[_Bin] = Field(min_length=1)
    scores: dict[str, _Distribution]
    histogram_edges: list[float]

    @model_validator(mode="after")
    def _has_a_count_per_bin(self) -> Self:
        bins = len(self.histogram_edges) - 1
        if bins < 1 or any(len(one.histogram) != bins for one in self.scores.values()):
            raise ValueError("each histogram must have one count per bin of histogram_edges")
        return self


class _Evaluation(_Model):
    report: RewardEvaluation


def read_evaluation(folder: Path, stage: str) -> RewardEvaluation | None:
    """Returns the held-out evaluation of a reward model; None for other stages, and before the first export.

    Reads that of the exported model, or while the run goes on, that of the best weights so far.

    Raises:
        ConfigError: the file is invalid; the message names it.
    """
    files = [folder / "model" / "evaluation.json", *sorted(folder.glob("best/step-*/evaluation.json"))[::-1]]
    path = next((file for file in files if file.is_file()), None)
    if stage != "reward" or path is None:
        return None
    try:
        return _Evaluation.model_validate_json(path.read_bytes()).report
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"])) or "the file"
        raise ConfigError(
            f"{path}: {key}: {problem['msg']}, not {short(problem['input'])}; export the model again or remove the file"
        ) from error


def score_histogram(evaluation: RewardEvaluation) -> Chart:
    """Draws the distributions of the scores of chosen and of rejected responses."""
    return draw_counts(
        "Scores of responses",
        f"{evaluation.pairs:,} held-out pairs, on the exported scale: mean 0, standard deviation 1",
        {name: one.histogram for name, one in evaluation.scores.items()},
        evaluation.histogram_edges,
        [f"mean {format_number(one.mean)}" for one in evaluation.scores.values()],
    )


def reliability_diagram(evaluations: Mapping[str, RewardEvaluation], colors: Sequence[int] | None = None) -> Chart:
    """Draws the reliability diagram of one or several reward models.

    Args:
        evaluations: the evaluations by the name of their curve.
        colors: the number of each curve's color; None for 0, 1, 2, and so on.
    """
    curves = {
        name: [Bin(one.confidence, one.accuracy, one.pairs) for one in evaluation.reliability]
        for name, evaluation in evaluations.items()
    }
    note = "share of held-out pairs ranked correctly, by the model's confidence; below the dashed line, it is overconfident"
    return draw_reliability("Reliability", note, curves, colors)
