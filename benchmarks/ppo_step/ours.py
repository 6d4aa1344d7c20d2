"""The trainer's own steps: seconds of each phase from its metrics, and from Ray's record when any role was at work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.connect import connect
from trainers.journal import step_path
from trainers.ppo import read_prompts, train
from trainers.rlhf_config import PPOConfig
from trainers.run import Run

Span = tuple[float, float]  # seconds since the epoch
RECORD_S = 30.0  # longest wait for Ray to have recorded the last call; it does so every second


@dataclass(frozen=True)
class Measured:
    """The steps after the first, which warms up."""

    steps: list[dict[str, Any]]  # a line of metrics.jsonl each
    idle: list[float]  # share of each step in which no role worked
    journal: list[Path]  # each step's file


def measure(config: PPOConfig) -> Measured:
    """Trains `config.steps` steps."""
    with connect(**config.cluster.connection()), Run(config.name, config) as run:
        train(config, run, read_prompts(config))
        steps = run.metrics()[1:]
        work = _recorded_until(float(steps[-1]["time"]))
    return Measured(
        steps,
        [idle(work, (step["time"] - step["seconds"], step["time"])) for step in steps],
        [step_path(run.path / "journal", int(step["step"]) - 1) for step in steps],
    )


def median_phases(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Median seconds of each phase and of the whole step, and tokens a second."""
    names = ["tokens_per_second", *(name for name in steps[0] if name.startswith("seconds"))]
    return {name.removeprefix("seconds_"): statistics.median(step[name] for step in steps) for name in names}


def _recorded_until(end: float) -> list[Span]:
    """When calls of the roles' actors ran. Waits until the record reaches `end`."""
    deadline = time.monotonic() + RECORD_S
    while True:
        events = [event for event in ray.timeline() if event["cat"].startswith("task::")]
        spans = sorted((event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6) for event in events)
        if spans and max(last for _, last in spans) > end - 1.0:
            return spans
        if time.monotonic() > deadline:
            raise TimeoutError(f"Ray's record of calls did not reach the last step in {RECORD_S:g} s")
        time.sleep(0.5)


def idle(work: Sequence[Span], step: Span) -> float:
    """The share of `step` that none of the sorted spans of `work` covers."""
    covered, reached = 0.0, step[0]
    for begun, ended in work:
        begun, ended = max(begun, reached), min(ended, step[1])
        if ended > begun:
            covered += ended - begun
            reached = ended
    return 1.0 - covered / (step[1] - step[0])
