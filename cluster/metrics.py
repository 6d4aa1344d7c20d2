"""All metrics of this project. Prometheus scrapes them; the dashboard and the alerts use them.

Metrics go through `ray.util.metrics`: each process sends its metrics to the agent of its node, whose Prometheus port
Ray lists for Prometheus' service discovery. Ray prefixes names with `ray_`, so `chimed_step` is queried as
`ray_chimed_step`, and adds labels (WorkerId, SessionName, ...). A gauge is exported only while it is being recorded: it
must be set again every few seconds, as the heartbeat (cluster/liveness/heartbeat.py) does, and it disappears half a
minute after its process has died. Importing this module does not import ray; a metric is registered when it is first
recorded, which must be in a process that has joined a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A metric's name (`chimed_...`, ending in its unit by Prometheus' convention), its help text, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ("run",)

    @property
    def queried(self) -> tuple[str, ...]:
        """Names under which Prometheus stores the metric."""
        return (f"ray_{self.name}",)


class Gauge(Metric):
    """A value that goes up and down. It must be set again every few seconds, or it disappears."""

    def set(self, value: float, /, **labels: str) -> None:
        """Sets the value for `labels`."""
        self._ray.set(value, tags=labels)

    @cached_property
    def _ray(self) -> Any:
        from ray.util.metrics import Gauge

        return Gauge(self.name, self.help, self.labels)


class Counter(Metric):
    """A count that never decreases; its name ends in `_total`."""

    def inc(self, value: float = 1.0, /, **labels: str) -> None:
        """Adds `value` for `labels`."""
        self._ray.inc(value, tags=labels)

    @cached_property
    def _ray(self) -> Any:
        from ray.util.metrics import Counter

        return Counter(self.name, self.help, self.labels)


@dataclass(frozen=True)
class Histogram(Metric):
    """Counts of the observations at or below each upper bound in `buckets`."""

    buckets: tuple[float, ...] = ()

    @property
    def queried(self) -> tuple[str, ...]:
        """Names under which Prometheus stores the metric."""
        return tuple(f"ray_{self.name}_{part}" for part in ("bucket", "sum", "count"))

    def observe(self, value: float, /, **labels: str) -> None:
        """Records one observation of `value` for `labels`."""
        self._ray.observe(value, tags=labels)

    @cached_property
    def _ray(self) -> Any:
        from ray.util.metrics import Histogram

        return Histogram(self.name, self.help, list(self.buckets), self.labels)


# ---- metrics of a run, recorded by its driver ------------------------------------------------------------------------
STEP = Gauge("chimed_step", "steps done")
STEPS_PLANNED = Gauge("chimed_steps_planned", "steps of the whole run")
STEP_TIMESTAMP = Gauge(
    "chimed_step_timestamp_seconds", "Unix time when the last step ended; before the first step, when the run started"
)
STEP_SECONDS = Gauge("chimed_step_seconds", "duration of the last step")
PHASE_SECONDS = Gauge("chimed_phase_seconds", "duration of a phase of the last PPO step", ("run", "phase"))
TOKENS_PER_SECOND = Gauge("chimed_tokens_per_second", "tokens per second in the last step")
LOSS = Gauge("chimed_loss", "training loss of the last step (supervised stages)")
REWARD = Gauge("chimed_reward_mean", "mean reward of the last step's responses, before the KL penalty")
KL = Gauge("chimed_kl_to_reference_nats", "KL divergence from policy to reference, nats per response")
GAP_MEAN = Gauge(
    "chimed_engine_trainer_gap_mean_nats",
    "mean absolute difference between engine and trainer log-probabilities of a token",
)
GAP_MAX = Gauge(
    "chimed_engine_trainer_gap_max_nats",
    "maximum difference between engine and trainer log-probabilities of a token in the last step",
)
CLIP_FRACTION = Gauge("chimed_clip_fraction", "fraction of tokens whose probability ratio was clipped")
ENTROPY = Gauge("chimed_entropy_nats", "mean entropy of the policy at response tokens")
RUNS_FREE = Gauge("chimed_runs_free_bytes", "free space of the file system that holds the run's folder")
RUNS_SIZE = Gauge("chimed_runs_size_bytes", "size of the file system that holds the run's folder")

# ---- metrics of a process of a run, recorded by that process ---------------------------------------------------------
_PROCESS = ("run", "role", "rank")
HEARTBEAT = Gauge("chimed_heartbeat_timestamp_seconds", "Unix time of the process's last heartbeat", _PROCESS)
RESIDENT = Gauge("chimed_resident_memory_bytes", "resident memory of the process", _PROCESS)
RESTARTS = Counter("chimed_restarts_total", "restarts of the process", _PROCESS)
WEIGHTS_VERSION = Gauge(
    "chimed_weights_version",
    "version of the policy's weights in the trainer (role policy) and in each engine",
    _PROCESS,
)

# ---- metrics of the endpoint, recorded by serve ----------------------------------------------------------------------
SERVE_REQUESTS = Counter("chimed_serve_requests_total", "completed requests", ("route", "model", "status"))
SERVE_TOKENS = Counter("chimed_serve_tokens_total", "prompt and completion tokens, by kind", ("model", "kind"))
SERVE_TIME_TO_FIRST_TOKEN = Histogram(
    "chimed_serve_time_to_first_token_seconds",
    "time from a request's arrival to its first token",
    (),
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
SERVE_QUEUE = Gauge("chimed_serve_queue", "requests that are queued or running", ())

RUN_METRICS: tuple[Metric, ...] = (
    *(STEP, STEPS_PLANNED, STEP_TIMESTAMP, STEP_SECONDS, PHASE_SECONDS, TOKENS_PER_SECOND, LOSS, REWARD, KL),
    *(GAP_MEAN, GAP_MAX, CLIP_FRACTION, ENTROPY, RUNS_FREE, RUNS_SIZE),
)
PROCESS_METRICS: tuple[Metric, ...] = (HEARTBEAT, RESIDENT, RESTARTS, WEIGHTS_VERSION)
SERVE_METRICS: tuple[Metric, ...] = (SERVE_REQUESTS, SERVE_TOKENS, SERVE_TIME_TO_FIRST_TOKEN, SERVE_QUEUE)
METRICS: tuple[Metric, ...] = (*RUN_METRICS, *PROCESS_METRICS, *SERVE_METRICS)

LOGGED: Mapping[str, Gauge] = {
    "loss": LOSS,
    "reward": REWARD,
    "kl_to_reference": KL,
    "engine_trainer_gap_mean": GAP_MEAN,
    "engine_trainer_gap_max": GAP_MAX,
    "policy_clip_fraction": CLIP_FRACTION,
    "policy_entropy": ENTROPY,
    "tokens_per_second": TOKENS_PER_SECOND,
    "seconds": STEP_SECONDS,
}
"""Values in a run's metrics.jsonl that are also exported as metrics, by their names there."""

LOGGED_PHASE = "seconds_"
"""Prefix of a phase's duration in metrics.jsonl; the rest of the name is the label `phase`."""


def record_logged(run: str, step: int, figures: Mapping[str, float]) -> None:
    """Records the values that a run has logged for a step.

    Args:
        run: the run's name.
        step: number of steps done.
        figures: the logged values by name; values that are not metrics are ignored.
    """
    STEP.set(step, run=run)
    for name, value in figures.items():
        if name in LOGGED:
            LOGGED[name].set(value, run=run)
        elif name.startswith(LOGGED_PHASE):
            PHASE_SECONDS.set(value, run=run, phase=name.removeprefix(LOGGED_PHASE))
        elif name == "weights_version":
            WEIGHTS_VERSION.set(value, run=run, role="policy", rank="0")
