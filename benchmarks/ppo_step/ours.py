"""Measures the trainer's steps: the time of each phase from its metrics, and the idle time from Ray's timeline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.connect import connect
from configs.logs import configure
from trainers.config.rlhf import PPOConfig
from trainers.ppo import read_prompts, train
from trainers.rlhf.journal import step_path
from trainers.runs.folder import Run

Span = tuple[float, float]  # seconds since the epoch
RECORD_S = 30.0  # longest wait until Ray's timeline, which is updated every second, has the last call


@dataclass(frozen=True)
class Measured:
    """The measured steps: all but the first, which warms up."""

    steps: list[dict[str, Any]]  # lines of metrics.jsonl
    idle: list[float]  # share of each step in which no role worked
    journal: list[Path]  # the journal's file of each step


def measure(config: PPOConfig) -> Measured:
    """Trains `config.steps` steps and returns the measurements."""
    configure("ppo", config.name)
    with connect(**config.cluster.connection()), Run(config.name, config) as run:
        train(config, run, read_prompts(config))
        steps = run.metrics()[1:]
        work = _recorded()
    return Measured(
        steps,
        [idle(work, (step["time"] - step["seconds"], step["time"])) for step in steps],
        [step_path(run.path / "journal", int(step["step"]) - 1) for step in steps],
    )


def median_phases(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns the median time of each phase and of the whole step, in seconds, and the median tokens per second."""
    names = ["tokens_per_second", *(name for name in steps[0] if name.startswith("seconds"))]
    return {name.removeprefix("seconds_"): statistics.median(step[name] for step in steps) for name in names}


def _recorded() -> list[Span]:
    """Returns the spans during which calls of the roles' actors ran, once Ray's timeline stops growing.

    Ray updates the timeline every second.
    """
    deadline = time.monotonic() + RECORD_S
    spans: list[Span] = []
    while time.monotonic() < deadline:
        time.sleep(2.5)
        before = len(spans)
        events = [event for event in ray.timeline() if event["cat"].startswith("task::")]
        spans = sorted((event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6) for event in events)
        if before and len(spans) == before:
            return spans
    raise TimeoutError(f"Ray's record of calls was not complete after {RECORD_S:g} s")


def idle(work: Sequence[Span], step: Span) -> float:
    """Returns the share of `step` that none of the sorted spans of `work` covers."""
    covered, reached = 0.0, step[0]
    for begun, ended in work:
        begun, ended = max(begun, reached), min(ended, step[1])
        if ended > begun:
            covered += ended - begun
            reached = ended
    return 1.0 - covered / (step[1] - step[0])
