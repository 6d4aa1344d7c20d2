"""Reads a run's samples of text: samples/step-XXXXXXXX.jsonl, one JSON object per line.

    {"step": 40, "prompt": [{"role": "user", "content": "…"}], "response": "…", "tokens": 12, "finished": true,
     "reward": 0.8, "parts": {"format": 1.0}}

The text is a model's output, so it is treated as untrusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from configs.errors import ConfigError
from configs.recipe import short
from reporting.areas import draw_histogram
from reporting.charts import Chart
from reporting.scale import nice_step

SHOWN = 4
"""How many of the best samples of a step are shown, and how many of the worst."""

_BINS = 20


class Message(BaseModel):
    """One message of a prompt."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    content: str


class Sample(BaseModel):
    """One response. Additional fields of the line are shown unchanged."""

    model_config = ConfigDict(extra="allow", strict=True)

    step: int
    prompt: list[Message]
    response: str
    tokens: int
    finished: bool
    reward: float | None
    parts: dict[str, float | None]

    def extras(self) -> dict[str, str]:
        """Returns the line's additional fields, by name, as short texts."""
        return {name: short(value) for name, value in (self.model_extra or {}).items()}


@dataclass(frozen=True)
class StepSamples:
    """The samples of one step. `best` and `worst` are shown and are disjoint; `count` is the number of all samples."""

    step: int
    count: int
    best: list[Sample]
    worst: list[Sample]


@dataclass(frozen=True)
class SamplesView:
    """The samples that the page shows, and their histograms.

    Attributes:
        steps: the samples of the last step and, if it is a different one, of the first step.
        charts: histograms over all samples of these steps.
        files: number of files of samples.
    """

    steps: list[StepSamples]
    charts: list[Chart]
    files: int


def read_samples(folder: Path) -> SamplesView | None:
    """Returns the samples of the first and the last step of a run that have samples; None if no step has any.

    Ignores an incomplete last line, which the run may still be writing.

    Raises:
        ConfigError: a line is not a valid sample; the message names file and line.
    """
    files = sorted((folder / "samples").glob("step-*.jsonl"))
    first = _first_with_samples(files)
    last = _first_with_samples(files[::-1])
    if not first or not last:
        return None
    steps = [last] if first is last or first[0].step == last[0].step else [last, first]
    groups = {f"step {samples[0].step:,}": samples for samples in reversed(steps)}
    charts = [
        _distribution(
            "Tokens", "lengths of the sampled responses", groups, lambda sample: float(sample.tokens), whole=True
        ),
        _distribution("Reward", "of the sampled responses", groups, lambda sample: sample.reward),
    ]
    return SamplesView([_ranked(samples) for samples in steps], charts, len(files))


def read_file(path: Path) -> list[Sample]:
    """Returns the samples of one file.

    Raises:
        ConfigError: a line is invalid; the message names the file and the line.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    samples = []
    for number, line in enumerate(lines, start=1):
        try:
            samples.append(Sample.model_validate(json.loads(line)))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise ConfigError(f"{path}:{number}: is not valid JSON; repair or remove the line") from error
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = ".".join(map(str, problem["loc"])) or "the line"
            raise ConfigError(f"{path}:{number}: {key}: {problem['msg']}, not {short(problem['input'])}") from error
    return samples


def _first_with_samples(files: Sequence[Path]) -> list[Sample] | None:
    return next((samples for path in files if (samples := read_file(path))), None)


def _ranked(samples: list[Sample]) -> StepSamples:
    """Selects the best and worst samples; if there are few, each is in only one of the two.

    Samples without a finite reward rank last.
    """
    ordered = sorted(samples, key=lambda sample: _finite(sample.reward, -math.inf), reverse=True)
    best = ordered[: min(SHOWN, (len(ordered) + 1) // 2)]
    worst = ordered[len(best) :][-SHOWN:][::-1]
    return StepSamples(samples[0].step, len(samples), best, worst)


def _distribution(
    title: str,
    note: str,
    groups: dict[str, list[Sample]],
    value_of: Callable[[Sample], float | None],
    *,
    whole: bool = False,
) -> Chart:
    """Draws a histogram per group, with common bins; the note says how many samples have no finite value."""
    values = {
        name: [value for sample in samples if math.isfinite(value := _finite(value_of(sample), math.nan))]
        for name, samples in groups.items()
    }
    known = [value for row in values.values() for value in row]
    missing = sum(map(len, groups.values())) - len(known)
    if missing:
        note += f"; {missing} without a finite value are left out"
    return draw_histogram(title, note, values, _edges(known, whole))


def _edges(values: Sequence[float], whole: bool) -> list[float]:
    """Returns the edges of about `_BINS` bins of equal width that contain all values. Edges are round numbers.

    With `whole`, for integer values, bins are at least 1 wide.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    spread = high - low
    width = nice_step(spread / _BINS) if spread > 1e-9 * max(abs(low), abs(high)) else max(abs(low) / 10, 0.1)
    if whole:
        width = max(1.0, math.ceil(width))
    first = math.floor(low / width)
    bins = math.floor(high / width) - first + 1
    return [float(f"{(first + n) * width:.12g}") for n in range(bins + 1)]


def _finite(value: float | None, otherwise: float) -> float:
    """Returns `value` if it is finite, else `otherwise`. Python's `json` module accepts NaN and Infinity."""
    return value if value is not None and math.isfinite(value) else otherwise
