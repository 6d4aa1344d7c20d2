from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
import ray
from rich.console import Console

from cluster.head import Head, HeadError
from cluster.liveness.heartbeat import DriverHeartbeat, Heartbeat
from cluster.liveness.registry import ProcessRecord, Progress, unregister_run, write_record
from cluster.placement import release, reserve
from cluster.status.__main__ import main, render
from cluster.status.view import ClusterView, NodeView, RankView, RunView, WaitingView, snapshot


def soon(check: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What `check` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"still {found!r} after {seconds:g} s"
        time.sleep(0.1)
    return found


@ray.remote(num_cpus=0.1, max_restarts=1)
class Engine:
    """An actor that beats as a rank of a run does."""

    version = 3

    def __init__(self, run: str, rank: int) -> None:
        Heartbeat(run, "rollout", rank, version=lambda: self.version).start()

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture
def head(ray_cluster: None) -> Iterator[Head]:
    with Head(ray.get_runtime_context().gcs_address) as head:
        yield head


@pytest.fixture
def here(head: Head, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test cluster as the one that RAY_ADDRESS names."""
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    return head.address


def run_named(name: str, head: Head) -> RunView | None:
    return next((run for run in snapshot(head).runs if run.name == name), None)


@pytest.mark.slow
def test_a_run_from_its_first_beat_to_its_end(
    head: Head, here: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with DriverHeartbeat("t/ppo", "ppo", tmp_path) as driver:
        driver.plan(steps=40, done=10)
        engines = [Engine.options(name=f"t/ppo/rollout-{rank}").remote("t/ppo", rank) for rank in range(2)]
        pids = ray.get([engine.pid.remote() for engine in engines])
        driver.step(11, {"reward": 0.5, "kl_to_reference": float("nan"), "weights_version": 11.0})
        driver.beat()
        run = soon(lambda: (seen := run_named("t/ppo", head)) and len(seen.ranks) == 3 and seen)
        assert (run.stage, run.state, run.step, run.steps, run.reward) == ("ppo", "running", 11, 40, 0.5)
        assert run.weights_version == 11
        assert [(r.role, r.rank, r.state, r.pid, r.restarts, r.weights_version) for r in run.ranks] == [
            ("driver", 0, "alive", os.getpid(), 0, None),
            ("rollout", 0, "alive", pids[0], 0, 3),
            ("rollout", 1, "alive", pids[1], 0, 3),
        ]
        assert all(rank.beat_s is not None and rank.beat_s < 60 for rank in run.ranks)
        assert all(rank.resident_bytes is not None and 2**24 < rank.resident_bytes < 2**34 for rank in run.ranks)

        main(["--json"])
        shown = json.loads(capsys.readouterr().out)  # strict JSON: the NaN is null
        assert [run["kl_to_reference"] for run in shown["runs"]] == [None]
        assert sum(node["total"]["CPU"] for node in shown["nodes"]) == 8
        main([])
        out = capsys.readouterr().out
        assert "t/ppo  ppo  running  step 11 of 40" in out
        assert out.count(" alive ") == 3

        os.kill(pids[1], signal.SIGKILL)  # Ray starts it again, then never more
        again = soon(lambda: (seen := run_named("t/ppo", head)) and seen.ranks[2].restarts == 1 and seen.ranks[2])
        soon(lambda: (seen := run_named("t/ppo", head)) and seen.ranks[2].state == "alive")
        os.kill(ray.get(engines[1].pid.remote()), signal.SIGKILL)
        soon(lambda: (seen := run_named("t/ppo", head)) and seen.ranks[2].state == "dead")
        assert again.role == "rollout"
        for engine in engines:
            ray.kill(engine)
    assert run_named("t/ppo", head) is None


@pytest.mark.slow
def test_a_run_that_fails_says_why_until_it_is_started_again(head: Head, tmp_path: Path):
    with pytest.raises(RuntimeError), DriverHeartbeat("t/sft", "sft", tmp_path):
        raise RuntimeError("the disk\nis full")
    run = run_named("t/sft", head)
    assert run is not None
    assert run.state == "failed: RuntimeError: the disk is full"
    with DriverHeartbeat("t/sft", "sft", tmp_path):
        run = soon(lambda: run_named("t/sft", head))
        assert run.state == "running"
        assert [rank.restarts for rank in run.ranks] == [0]
    assert run_named("t/sft", head) is None


@pytest.mark.slow
def test_runs_whose_names_begin_alike_do_not_touch_each_other(head: Head, tmp_path: Path):
    with DriverHeartbeat("t/a", "sft", tmp_path):
        with DriverHeartbeat("t/a2", "sft", tmp_path):
            soon(lambda: run_named("t/a", head) and run_named("t/a2", head))
        assert run_named("t/a2", head) is None
        assert run_named("t/a", head) is not None


@pytest.mark.slow
def test_a_job_that_is_gone_and_notices_of_yesterday(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def leave(run: str) -> None:
        write_record(ProcessRecord(run, "driver", 0, 1, "", "ffffffff", progress=Progress("ppo", step=5, steps=9)))

    leave("t/killed")
    run = run_named("t/killed", head)
    assert run is not None
    assert (run.state, run.step, run.ranks) == ("ended without a report", 5, ())
    with monkeypatch.context() as patch:
        now = time.time()
        patch.setattr(time, "time", lambda: now - 90_000)
        leave("t/old")
    assert run_named("t/old", head) is not None
    with DriverHeartbeat("t/new", "ppo", tmp_path):
        assert run_named("t/old", head) is None
        assert run_named("t/killed", head) is not None
    unregister_run("t/killed")


@pytest.mark.slow
def test_what_waits_and_no_run(head: Head, here: str, capsys: pytest.CaptureFixture[str]):
    asked = ray.util.placement_group([{"CPU": 100.0}], name="t/waits")
    try:
        (waiting,) = soon(lambda: snapshot(head).waiting)
        assert waiting.name == "t/waits"
        assert waiting.why.startswith("t/waits needs 100 CPU; no autoscaler here: the cluster has 8 CPU (")
        main([])
        out = capsys.readouterr().out
        assert out.startswith(f"no runs on the cluster at {here}\nt/waits needs 100 CPU; no autoscaler here")
    finally:
        ray.util.remove_placement_group(asked)
    soon(lambda: not snapshot(head).waiting)
    placed = reserve({"t/held": [{"CPU": 2.0}]}, timeout_s=30)
    soon(lambda: snapshot(head).nodes[0].used["CPU"] >= 2.0)
    release(placed)


def test_a_cluster_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    began = time.monotonic()
    for address, message in (
        ("127.0.0.1:1", "no Ray cluster responds at --address 127.0.0.1:1"),
        ("x", "give HOST:PORT"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["--address", address])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for running, message in (
        (set(), "no Ray cluster runs on this machine; name one with --address HOST:PORT"),
        ({"b:2", "a:1"}, "several Ray clusters run on this machine (a:1, b:2); name one with --address HOST:PORT"),
    ):
        monkeypatch.setattr("cluster.status.__main__.find_gcs_addresses", partial(frozenset, running))
        with pytest.raises(SystemExit) as end:
            main([])
        assert end.value.code == 2
        assert capsys.readouterr().err == f"python -m cluster.status: error: {message}\n"
    assert time.monotonic() - began < 20


class Screen:
    """Stands for rich's `Live`: keeps what is shown, and presses Ctrl-C after the third picture."""

    def __init__(self, **_: Any) -> None:
        self.pictures: list[str] = []

    def update(self, picture: Any, refresh: bool) -> None:
        console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        console.print(picture)
        self.pictures.append(console.export_text())
        if len(self.pictures) == 3:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_watching_goes_on_when_the_head_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    from cluster.status import __main__ as status

    screen = Screen()
    answers = iter([ClusterView("h:1"), HeadError("the head does not respond"), ClusterView("h:1")])

    def answer(_: Head) -> ClusterView:
        found = next(answers)
        if isinstance(found, HeadError):
            raise found
        return found

    monkeypatch.setattr(status, "snapshot", answer)
    monkeypatch.setattr(status, "Live", lambda **_: screen)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with Head("127.0.0.1:1") as head:
        status.watch(head, 0.01, as_json=False)
    assert ["no runs on the cluster at h:1" in text for text in screen.pictures] == [True, False, True]
    assert "the head does not respond" in screen.pictures[1]


def test_the_whole_picture():
    rank = RankView("rollout", 0, "late", "10.0.0.2", "policy+rollout 0", 71, 2, 3 * 2**29, 7300.0, 12)
    waiting = RankView("policy", 0, "pending creation", "", None, None, 0, None, None, None)
    run = RunView("a/ppo", "ppo", "running", 12, 40, 130.0, 900.0, 1.5, 0.25, None, 12, (rank, waiting))
    node = NodeView("10.0.0.2", "", "idle", {"CPU": 8.0, "memory": 2.0**34}, {"CPU": 0.5, "memory": 0.0})
    group = WaitingView("a/policy", "a/policy needs 8 GPU; the autoscaler is adding 2 nodes (2 trainer)", 65.0)
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(render(ClusterView("h:1", (run,), (group,), (node,), {"trainer": 2})))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert " ".join(lines[0]) == (
        "a/ppo ppo running step 12 of 40, 2 min ago tokens/s 900 reward 1.5 KL 0.25 weights 12"
    )
    assert lines[2] == [
        "rollout",
        "0",
        "late",
        "10.0.0.2",
        "policy+rollout",
        "0",
        "71",
        "2",
        *["1.50", "GiB", "2.0", "h", "ago", "12"],
    ]
    assert lines[3] == ["policy", "0", "pending", "creation", "-", "-", "0", "-", "-", "-"]
    assert " ".join(lines[4]) == "a/policy needs 8 GPU; the autoscaler is adding 2 nodes (2 trainer) (65 s)"
    assert " ".join(lines[5]) == "the autoscaler is adding: 2 trainer"
    assert " ".join(lines[7]) == "10.0.0.2 - idle 0.5/8 CPU, 0.0/16.0 GiB memory"
