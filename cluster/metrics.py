"""Every metric of this project, by name: what code records, Prometheus scrapes, the dashboard draws, the alerts watch.

Metrics go through `ray.util.metrics`: each process hands its own to the agent of its node, whose Prometheus port Ray
lists for Prometheus' service discovery. Ray puts `ray_` before a name, so `chimed_step` is queried as
`ray_chimed_step`, and adds labels of its own (WorkerId, SessionName, ...). A gauge is exported only while it is
being recorded: one that is to stay must be set again every few seconds, as the pulse (cluster/liveness/heartbeat.py) does, and half a
minute after its process has died it is gone. Importing this file imports no ray; a metric is registered when it is first
recorded, which must be in a process that has joined a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A metric's name (`chimed_...`, the unit last, as Prometheus has it), what it tells, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ("run",)

    @property
    def queried(self) -> tuple[str, ...]:
        """Names under which Prometheus has it."""
        return (f"ray_{self.name}",)


class Gauge(Metric):
    """A value that goes up and down. Set it again every few seconds, or it disappears."""

    def set(self, value: float, /, **labels: str) -> None:
        """Sets the value for `labels`."""
        self._ray.set(value, tags=labels)

    @cached_property
    def _ray(self) -> Any:
        from ray.util.metrics import Gauge

        return Gauge(self.name, self.help, self.labels)


class Counter(Metric):
    """A count that only grows; its name ends in `_total`."""

    def inc(self, value: float = 1.0, /, **labels: str) -> None:
        """Adds `value` for `labels`."""
        self._ray.inc(value, tags=labels)

    @cached_property
    def _ray(self) -> Any:
        from ray.util.metrics import Counter

        return Counter(self.name, self.help, self.labels)


@dataclass(frozen=True)
class Histogram(Metric):
    """How many observations fell below each of `buckets`."""

    buckets: tuple[float, ...] = ()

    @property
    def queried(self) -> tuple[str, ...]:
        """Names under which Prometheus has it."""
        return tuple(f"ray_{self.name}_{part}" for part in ("bucket", "sum", "count"))

    def observe(self, value: float, /, **labels: str) -> None:
        """Counts `value` for `labels`."""
        self._ray.observe(value, tags=labels)

    @cached_property
    def _ray(self) -> Any:
        from ray.util.metrics import Histogram

        return Histogram(self.name, self.help, list(self.buckets), self.labels)


# ---- a run, recorded by its driver -----------------------------------------------------------------------------------
STEP = Gauge("chimed_step", "steps done")
STEPS_PLANNED = Gauge("chimed_steps_planned", "steps of the whole run")
STEP_TIMESTAMP = Gauge("chimed_step_timestamp_seconds", "when the last step was done, Unix time; at first, the start")
STEP_SECONDS = Gauge("chimed_step_seconds", "duration of the last step")
PHASE_SECONDS = Gauge("chimed_phase_seconds", "duration of a phase of the last PPO step", ("run", "phase"))
TOKENS_PER_SECOND = Gauge("chimed_tokens_per_second", "tokens of the last step over its seconds")
LOSS = Gauge("chimed_loss", "training loss of the last step (supervised stages)")
REWARD = Gauge("chimed_reward_mean", "mean reward of the last step's answers, before the KL penalty")
KL = Gauge("chimed_kl_to_reference_nats", "KL of policy to reference, nats an answer")
GAP_MEAN = Gauge(
    "chimed_engine_trainer_gap_mean_nats", "mean difference of a token's log-probability in engine and trainer"
)
GAP_MAX = Gauge("chimed_engine_trainer_gap_max_nats", "largest of these differences in the last step")
CLIP_FRACTION = Gauge("chimed_clip_fraction", "share of tokens whose probability ratio was clipped")
ENTROPY = Gauge("chimed_entropy_nats", "mean entropy of the policy at response tokens")
RUNS_FREE = Gauge("chimed_runs_free_bytes", "free space where the run's folder is")
RUNS_SIZE = Gauge("chimed_runs_size_bytes", "size of the file system where the run's folder is")

# ---- a process of a run, recorded by itself --------------------------------------------------------------------------
_PROCESS = ("run", "role", "rank")
HEARTBEAT = Gauge("chimed_heartbeat_timestamp_seconds", "when the process last said that it lives, Unix time", _PROCESS)
RESIDENT = Gauge("chimed_resident_memory_bytes", "resident memory of the process", _PROCESS)
RESTARTS = Counter("chimed_restarts_total", "times the process was started again", _PROCESS)
WEIGHTS_VERSION = Gauge(
    "chimed_weights_version", "version of the policy's weights: in the trainer (role policy), in each engine", _PROCESS
)

# ---- the endpoint, recorded by serve ---------------------------------------------------------------------------------
SERVE_REQUESTS = Counter("chimed_serve_requests_total", "requests answered", ("route", "model", "status"))
SERVE_TOKENS = Counter("chimed_serve_tokens_total", "tokens of the kinds prompt and completion", ("model", "kind"))
SERVE_TIME_TO_FIRST_TOKEN = Histogram(
    "chimed_serve_time_to_first_token_seconds",
    "from the request's arrival to its first token",
    (),
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
SERVE_QUEUE = Gauge("chimed_serve_queue", "requests that wait or are being answered", ())

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
"""Which figures of a run's metrics.jsonl are metrics of the run too, under what name."""

LOGGED_PHASE = "seconds_"
"""What the figure of a phase's duration begins with in metrics.jsonl; the rest is the label `phase`."""


def record_logged(run: str, step: int, figures: Mapping[str, float]) -> None:
    """Records what a run has logged of its step `step`."""
    STEP.set(step, run=run)
    for name, value in figures.items():
        if name in LOGGED:
            LOGGED[name].set(value, run=run)
        elif name.startswith(LOGGED_PHASE):
            PHASE_SECONDS.set(value, run=run, phase=name.removeprefix(LOGGED_PHASE))
        elif name == "weights_version":
            WEIGHTS_VERSION.set(value, run=run, role="policy", rank="0")
