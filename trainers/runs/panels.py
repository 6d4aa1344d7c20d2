"""The panels of the report: which metrics share a chart. Other metrics get one chart each in the section "Other".

TensorBoard groups a run's metrics by the same sections.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from reporting.charts import COLORS
from reporting.curves import Series

PHASE = "seconds_"
"""Prefix of the metrics with the time of a phase, in seconds, which are drawn as one stack."""

TASKS = "eval/"
"""Prefix of the headline metrics of the tasks of `evaluation`, which are key metrics, too."""

LOG, LOG_OTHER = 10.0, 1000.0
"""Ratio of largest to smallest value from which the axis is logarithmic.

`LOG` is for metrics known to fall by orders of magnitude, `LOG_OTHER` for metrics in no panel.
"""


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        names: shell-style patterns of the metrics' names.
        note: explanation of the values.
        share: whether values are fractions, shown as percentages.
        unit: unit of the logged values; see `reporting.formats.display_unit`. Empty if the note says it.
        by_stage: whether the metrics measure different things in different stages, so that runs of different stages
            cannot be compared by them.
        log_from: the axis is logarithmic if all values are positive and the largest is at least this many times the
            smallest.
    """

    section: str
    title: str
    names: tuple[str, ...]
    note: str = ""
    share: bool = False
    unit: str = ""
    by_stage: bool = False
    log_from: float = math.inf


PANELS = (
    Panel("Outcome", "Reward", ("reward",), "mean over a step's responses, before the KL penalty"),
    Panel("Outcome", "Spread of rewards", ("reward_std",), "standard deviation over a step's responses"),
    Panel("Outcome", "Reward by source", ("reward_*",), "mean over a step's responses, before weights"),
    Panel(
        "Outcome", "Score", ("score",), "the reward that the algorithm uses: clipped, scaled, and less length penalties"
    ),
    Panel("Outcome", "Tasks", (f"{TASKS}*",), "headline metric of each task of `evaluation`"),
    Panel("Outcome", "Loss", ("loss", "heldout_loss"), "in training and on held-out data", by_stage=True, log_from=LOG),
    Panel("Outcome", "Perplexity", ("*perplexity",), "of held-out text", log_from=LOG),
    Panel(
        "Preferences",
        "Pairs ranked correctly",
        ("accuracy", "heldout_accuracy*", "length_baseline"),
        "share of pairs: in training, held out, and by length alone",
        share=True,
    ),
    Panel(
        "Preferences", "Margin", ("margin", "heldout_margin"), "chosen over rejected, mean over pairs", by_stage=True
    ),
    Panel(
        "Preferences",
        "Implicit rewards",
        ("*chosen_reward", "*rejected_reward"),
        "beta times the log-ratio of policy to reference, mean over pairs",
    ),
    Panel("Preferences", "Scores", ("score_std", "score_mean"), "standard deviation and mean over held-out responses"),
    Panel("Preferences", "Calibration error", ("heldout_ece",), "accuracy from confidence, mean over held-out pairs"),
    Panel("Preferences", "Score and length", ("heldout_length_*",), "correlation over held-out responses"),
    Panel("Rejection sampling", "Round", ("round",), "number of the round, from 0"),
    Panel("Policy", "KL to the reference", ("kl_to_reference",), "nats per response"),
    Panel("Policy", "KL to the reference, by token", ("kl_to_reference_per_token",), "nats per token"),
    Panel("Policy", "Entropy", ("*entropy*",), "nats per token, mean over responses"),
    Panel("Policy", "Clip fraction", ("*clip_fraction*",), "share of tokens whose ratio was clipped", share=True),
    Panel("Policy", "KL of an update", ("policy_kl", "policy_first_kl"), "nats per token; first: before the update"),
    Panel("Policy", "Distance of ratio from 1", ("*ratio_deviation",), "mean |ratio - 1|; first: before the update"),
    Panel("Policy", "KL in the loss", ("policy_kl_loss",), "nats per token, by the chosen estimator"),
    Panel(
        "Policy", "Importance weight", ("policy_rollout_correction",), "policy over engine probability, truncated, mean"
    ),
    Panel("Policy", "KL coefficient", ("kl_coef",)),
    Panel("Critic", "Explained variance", ("explained_variance",), "explained variance of the returns; 1 is perfect"),
    Panel("Critic", "Critic loss", ("critic_loss",), log_from=LOG),
    Panel(
        "Responses",
        "Response length",
        ("response_tokens", "response_tokens_max"),
        "per response: mean, longest",
        unit="tokens",
    ),
    Panel("Responses", "Truncated", ("truncated",), "share of responses truncated at the limit", share=True),
    Panel("Responses", "Trained", ("trained_share",), "share of responses in the update", share=True),
    Panel("Responses", "Prompt length", ("prompt_tokens",), "mean", unit="tokens"),
    Panel("Optimizer", "Policy loss", ("policy_loss",)),
    Panel("Optimizer", "Gradient norm", ("grad_norm", "*_grad_norm"), "before clipping", log_from=LOG),
    Panel("Optimizer", "Learning rate", ("lr", "*_lr")),
    Panel("Engines", "Engine against trainer", ("engine_trainer_*",), "log-probability, nats per token", log_from=LOG),
    Panel(
        "Engines", "Drift after publishing", ("publish_drift",), "largest on the probe, nats per token", log_from=LOG
    ),
    Panel("Engines", "Older weights against trainer", ("behind_*",), "log-probability, nats per token", log_from=LOG),
    Panel(
        "Engines",
        "Staleness",
        ("staleness", "staleness_max"),
        "weights versions between generation and update: mean, largest",
    ),
    Panel("Engines", "Time to send weights", ("transfer_seconds",), "per publish", unit="seconds"),
    Panel("Engines", "Weights version", ("weights_version",)),
    Panel("Time", "Throughput", ("tokens_per_second",), "of the whole step", unit="tokens/s"),
    Panel("Time", "Time per step", ("seconds",), unit="seconds", log_from=LOG),
    Panel(
        "Time",
        "Model FLOPs utilization (MFU)",
        ("mfu",),
        "FLOPs of a step over the FLOPs that matmul reaches in the same time",
        share=True,
    ),
    Panel("Time", "Peak memory", ("peak_memory_bytes",), "of the rank with the highest peak", unit="bytes"),
    Panel("Data", "Epochs", ("epoch",)),
    Panel("Data", "Tokens per step", ("tokens",), unit="tokens"),
    Panel("Data", "Density", ("density",), "share of a batch's positions that hold tokens", share=True),
)

CARDS = (
    ("reward", "Reward"),
    ("kl_to_reference", "KL to the reference"),
    ("response_tokens", "Response length"),
    ("truncated", "Truncated"),
    ("policy_entropy", "Entropy"),
    ("explained_variance", "Explained variance"),
    ("heldout_accuracy", "Pairs ranked correctly"),
    ("length_baseline", "Length baseline"),
    ("heldout_margin", "Margin"),
    ("heldout_loss", "Held-out loss"),
    ("heldout_perplexity", "Perplexity"),
    ("loss", "Training loss"),
    ("accuracy", "Training pairs ranked correctly"),
    ("tokens_per_second", "Throughput"),
)
"""Key metrics, in order, with their titles; a run shows those that it has."""

OTHER = "Other"


def key_metrics(series: Mapping[str, Series]) -> dict[str, float]:
    """Returns the last finite value of every key metric of a run, by name: those of `CARDS`, then those of its tasks.

    Args:
        series: the run's metrics, by name.
    """
    names = [*(name for name, _ in CARDS if name in series), *(name for name in series if name.startswith(TASKS))]
    values = {name: series[name].finite() for name in names}
    return {name: finite[-1] for name, finite in values.items() if finite}


def panels_of(names: Iterable[str]) -> list[tuple[Panel, list[str]]]:
    """Assigns every metric except phases to a panel; returns the panels that have metrics, in the page's order."""
    found: dict[Panel, list[str]] = {panel: [] for panel in PANELS}
    other: list[tuple[Panel, list[str]]] = []
    for name in names:
        if name.startswith(PHASE):
            continue
        panel = panel_of(name)
        if panel is None:
            other.append((Panel(OTHER, name, (name,), log_from=LOG_OTHER), [name]))
        else:
            found[panel].append(name)
    split = [
        (panel, members[start : start + COLORS])
        for panel, members in found.items()
        for start in range(0, len(members), COLORS)
    ]
    return split + other


def panel_of(name: str) -> Panel | None:
    """Returns the first panel with a pattern that matches the metric; None if there is none."""
    return next((panel for panel in PANELS if any(fnmatchcase(name, pattern) for pattern in panel.names)), None)


@cache  # it is called for every metric of every step
def section_of(name: str) -> str:
    """Returns the section of a metric's panel."""
    if name.startswith(PHASE):
        return "Time"
    panel = panel_of(name)
    return OTHER if panel is None else panel.section
