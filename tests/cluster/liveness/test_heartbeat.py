"""Metrics of real processes, read where Prometheus would read them: at the port of their node's agent."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from cluster.liveness.heartbeat import DriverHeartbeat, Heartbeat
from cluster.memory import resident_bytes

Samples = dict[tuple[str, ...], float]  # (name, run, role, rank, phase), without what is empty -> value


@ray.remote(num_cpus=0.1, max_restarts=1)
class Engine:
    """An actor that beats as a rank of a run does."""

    def __init__(self) -> None:
        Heartbeat("m/ppo", "rollout", 1, version=lambda: 12).start()

    def pid(self) -> int:
        return os.getpid()


def scrape() -> Samples:
    """The project's metrics of run m/ppo, as the node exports them."""
    (node,) = (node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(sample.labels[key] for key in ("run", "role", "rank", "phase") if key in sample.labels)): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("ray_chimed_") and sample.labels.get("run") == "m/ppo"
    }


def scraped(when: Callable[[Samples], bool], seconds: float = 60.0) -> Samples:
    deadline = time.monotonic() + seconds
    while not when(samples := scrape()):
        assert time.monotonic() < deadline, samples
        time.sleep(0.5)
    return samples


@pytest.mark.long
@pytest.mark.slow
def test_prometheus_sees_a_run_and_its_processes(ray_cluster: None, tmp_path: Path) -> None:
    beat = "ray_chimed_heartbeat_timestamp_seconds"
    mine, its = ("m/ppo", "driver", "0"), ("m/ppo", "rollout", "1")
    with DriverHeartbeat("m/ppo", "ppo", tmp_path) as driver:
        driver.plan(steps=40, done=10)
        began = time.time()
        driver.step(11, {"reward": 0.5, "seconds_update": 2.0, "seconds": 3.0, "policy_entropy": 1.5})
        engine = Engine.remote()
        pid = ray.get(engine.pid.remote())
        samples = scraped(lambda found: (beat, *its) in found and ("ray_chimed_entropy_nats", "m/ppo") in found)
        now = time.time()
        assert samples["ray_chimed_step", "m/ppo"] == 11
        assert samples["ray_chimed_steps_planned", "m/ppo"] == 40
        assert samples["ray_chimed_step_timestamp_seconds", "m/ppo"] == pytest.approx(began, abs=1)
        assert samples["ray_chimed_reward_mean", "m/ppo"] == 0.5
        assert samples["ray_chimed_step_seconds", "m/ppo"] == 3.0
        assert samples["ray_chimed_phase_seconds", "m/ppo", "update"] == 2.0
        assert samples["ray_chimed_weights_version", *its] == 12
        assert samples["ray_chimed_resident_memory_bytes", *mine] == pytest.approx(resident_bytes(), rel=0.5)
        assert 0 < samples["ray_chimed_runs_free_bytes", "m/ppo"] < samples["ray_chimed_runs_size_bytes", "m/ppo"]
        for who in (mine, its):
            assert now - 30 < samples[beat, *who] <= now
            assert ("ray_chimed_restarts_total", *who) not in samples

        os.kill(pid, signal.SIGKILL)
        samples = scraped(lambda found: ("ray_chimed_restarts_total", *its) in found)
        assert samples["ray_chimed_restarts_total", *its] == 1

        ray.kill(engine)
        samples = scraped(lambda found: (beat, *its) not in found)
        assert now < samples[beat, *mine]
        assert samples["ray_chimed_step", "m/ppo"] == 11, "what does not change stays"
