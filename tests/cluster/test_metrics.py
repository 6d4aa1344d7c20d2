from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from actors.weight_sync.publisher import Published
from cluster import metrics
from cluster.metrics import METRICS, Counter, Gauge, Histogram, Metric
from trainers.rlhf.metrics import step_metrics
from trainers.runs.phases import Phases

ROOT = Path(__file__).resolve().parents[2]
UNITS = ("_seconds", "_bytes", "_total", "_nats")
BARE = {  # without a unit: counts of things that go up and down, shares, and figures whose unit is the model's own
    *("chimed_step", "chimed_steps_planned", "chimed_tokens_per_second", "chimed_loss", "chimed_reward_mean"),
    *("chimed_clip_fraction", "chimed_weights_version", "chimed_serve_queue"),
}


def test_every_constant_is_listed_once():
    constants = [value for value in vars(metrics).values() if isinstance(value, Metric)]
    assert sorted(metric.name for metric in METRICS) == sorted(metric.name for metric in constants)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_prometheus(metric: Metric):
    assert re.fullmatch(r"chimed_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith(UNITS) != (metric.name in BARE)
    assert metric.name.endswith("_total") == isinstance(metric, Counter)
    assert metric.help
    assert metric.name.startswith("chimed_serve_") or metric.labels[0] == "run"


def test_a_histogram_is_queried_by_its_parts():
    histogram = Histogram("chimed_x_seconds", "x", (), (1.0,))
    assert histogram.queried == (
        "ray_chimed_x_seconds_bucket",
        "ray_chimed_x_seconds_sum",
        "ray_chimed_x_seconds_count",
    )
    assert Gauge("chimed_x", "x").queried == ("ray_chimed_x",)


def ppo_step() -> dict[str, float]:
    floats = pa.array([[0.0, -1.0], [-2.0]], pa.list_(pa.float32()))
    columns = dict.fromkeys(("logprobs", "rollout_logprobs", "ref_logprobs", "values", "returns", "weights"), floats)
    tokens = pa.array([[1, 2], [3]], pa.list_(pa.int32()))
    table = pa.table(
        {
            "prompt": tokens,
            "response": tokens,
            "reward": pa.array([1.0, 2.0]),
            "score": pa.array([1.0, 2.0]),
            "finished": [True, False],
            **columns,
        }
    )
    metrics = {"policy": [{"kl": 0.0, "clip_fraction": 0.25, "entropy": 1.5}]}
    phases = Phases()
    phases.seconds = {"generate": 2.0, "update": 1.0}
    step = step_metrics(table, metrics, 7, Published(7, 0.1, 1e-6), kl_coef=0.1, staleness=np.zeros(3))
    return step | phases.metrics(step["tokens"])


def test_what_ppo_logs_is_what_is_recorded(monkeypatch: pytest.MonkeyPatch):
    recorded: dict[tuple[str, ...], float] = {}
    monkeypatch.setattr(
        Gauge, "set", lambda gauge, value, **labels: recorded.update({(gauge.name, *labels.values()): value})
    )
    metrics.record_logged("a/ppo", 3, ppo_step())
    assert recorded == {
        ("chimed_step", "a/ppo"): 3,
        ("chimed_step_seconds", "a/ppo"): 3.0,
        ("chimed_phase_seconds", "a/ppo", "generate"): 2.0,
        ("chimed_phase_seconds", "a/ppo", "update"): 1.0,
        ("chimed_tokens_per_second", "a/ppo"): 2.0,
        ("chimed_reward_mean", "a/ppo"): 1.5,
        ("chimed_kl_to_reference_nats", "a/ppo"): 0.0,
        ("chimed_engine_trainer_gap_mean_nats", "a/ppo"): 0.0,
        ("chimed_engine_trainer_gap_max_nats", "a/ppo"): 0.0,
        ("chimed_clip_fraction", "a/ppo"): 0.25,
        ("chimed_entropy_nats", "a/ppo"): 1.5,
        ("chimed_weights_version", "a/ppo", "policy", "0"): 7.0,
    }


def test_importing_the_names_imports_no_ray():
    code = "import cluster.metrics, sys; print([m for m in ('torch', 'ray', 'grpc') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


def test_the_page_lists_every_metric_with_its_labels():
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(chimed_\w+)` \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
    wanted = [(m.name, ", ".join(f"`{label}`" for label in m.labels) or "none", m.help) for m in METRICS]
    assert [tuple(cell.strip() for cell in row) for row in rows] == wanted
