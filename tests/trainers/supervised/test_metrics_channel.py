"""What ranks send is logged, and a checkpoint of a step is made only when that step has been."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.util.queue import Queue

from actors.zero.checkpoint import CheckpointStore
from configs.errors import RunError
from trainers.config.supervised import SftConfig
from trainers.runs.folder import Run, read_metrics
from trainers.runs.stopping import Stopped, StopRequests
from trainers.supervised.metrics_channel import MetricsChannel, Sender
from trainers.supervised.tasks.sft import SftStage

pytestmark = pytest.mark.slow


@pytest.fixture
def config(data: Any, clinic: Path) -> SftConfig:
    values = {"name": "mail", "model": str(clinic / "model"), "data": {**data("sft"), "max_tokens": 512}}
    return SftConfig.model_validate_json(json.dumps({**values, "checkpoint_every": 1, "max_steps": 3}))


def test_whoever_waits_for_a_step_finds_it_logged(
    config: SftConfig, runs: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Run.log

    def log_slowly(run: Run, step: int, metrics: dict[str, float]) -> None:
        time.sleep(0.3)
        log(run, step, metrics)

    monkeypatch.setattr(Run, "log", log_slowly)
    with Run(config.name, config) as run, MetricsChannel(run, 3, ("loss",), StopRequests()) as queue:
        sender = Sender(queue, timeout_s=60)
        sender.send("start", 0, {})
        for step in (1, 2):
            sender.send("step", step, {"loss": 1.0})
        assert list(read_metrics(run.path)) == []
        sender.wait_logged(2)
        assert [line["step"] for line in read_metrics(run.path)] == [1, 2]
        again = Sender(queue, timeout_s=60)  # of the workers that replace the first: older receipts are not its own
        again.send("start", 1, {})
        again.send("step", 2, {"loss": 2.0})
        again.wait_logged(2)
        assert [line["loss"] for line in read_metrics(run.path)] == [1.0, 2.0]


def test_workers_that_begin_anew_evaluate_the_start_anew(config: SftConfig, runs: Path, ray_cluster: None) -> None:
    with Run(config.name, config) as run, MetricsChannel(run, 3, (), StopRequests()) as queue:
        for loss in (1.0, 2.0):
            sender = Sender(queue, timeout_s=60)
            sender.send("start", 0, {})
            for step in (0, 1):
                sender.send("step", step, {"loss": loss})
            sender.wait_logged(1)
        assert [(line["step"], line["loss"]) for line in read_metrics(run.path)] == [(0, 2.0), (1, 2.0)]


def test_a_stop_request_reaches_the_first_rank_with_the_next_receipt(
    config: SftConfig, runs: Path, ray_cluster: None
) -> None:
    with StopRequests() as stop, Run(config.name, config) as run:
        channel = MetricsChannel(run, 3, (), stop)
        with channel as queue:
            sender = Sender(queue, timeout_s=60)
            assert not sender.stop_requested()  # before anything was sent, as on the other ranks
            sender.send("start", 0, {})
            sender.send("step", 1, {})
            sender.wait_logged(1)
            assert not sender.stop_requested()
            os.kill(os.getpid(), signal.SIGINT)
            sender.send("step", 2, {})
            sender.wait_logged(2)
            assert sender.stop_requested()
            assert sender.stop_requested()
            sender.send("stopped", 2, {})
        assert channel.stopped_at == 2
        with pytest.raises(Stopped) as end:
            stop.check()
        assert end.value.code == 130


def test_a_driver_that_logs_nothing_is_named(ray_cluster: None) -> None:
    sender = Sender(Queue(actor_options={"num_cpus": 0}), timeout_s=0.2)
    sender.send("start", 0, {})
    with pytest.raises(RunError, match="the driver did not log step 1 within 0 s"):
        sender.wait_logged(1)


def test_a_checkpoint_waits_for_the_log(
    config: SftConfig, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []
    commit = CheckpointStore.commit

    def committed(store: CheckpointStore, step: int, *rest: Any) -> Path:
        done.append(("committed", step))
        return commit(store, step, *rest)

    monkeypatch.setattr(CheckpointStore, "commit", committed)
    train(SftStage(config), tmp_path, wait_logged=lambda step: done.append(("logged", step)))
    assert done == [("logged", 1), ("committed", 1), ("logged", 2), ("committed", 2)]
