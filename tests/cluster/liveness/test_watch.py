"""Real processes that are stopped and killed, and what a watch says of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
import ray

from cluster.liveness import heartbeat as pulse
from cluster.liveness.heartbeat import Heartbeat
from cluster.liveness.watch import Watch
from cluster.waiting import RoleDied, get

pytestmark = pytest.mark.slow


@ray.remote(num_cpus=0.1)
class Rank:
    def __init__(self, role: str) -> None:
        pulse.SECONDS = 1.0
        Heartbeat("watched/run", role, 0).start()

    def pid(self) -> int:
        return os.getpid()

    def work(self) -> None:
        time.sleep(60)


def soon(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_process_that_hangs_is_told_from_one_that_works_and_one_that_is_dead(ray_cluster: None) -> None:
    working, hanging = Rank.options(name="watched-0").remote("reward"), Rank.options(name="watched-1").remote("rollout")
    watch = Watch("watched/run", 4.0)
    watch.expect(("reward", 0), working)
    watch.expect(("rollout", 0), hanging)
    pids = ray.get([working.pid.remote(), hanging.pid.remote()], timeout=60)
    assert watch.silent() == {}
    os.kill(pids[1], signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(RoleDied, match="rollout: rank 0 hangs: no heartbeat for [4-9] s") as error:
        get([working.work.remote()], "reward: add_columns", 60.0, lambda: watch.poll(("rollout",)))
    assert time.monotonic() - began < 30
    assert error.value.role == "rollout"
    watch.poll(("reward",))
    assert list(watch.silent()) == [("rollout", 0)]
    assert watch.dead() == []
    assert [notice.pid for notice in watch.last_of("rollout", [0])] == [pids[1]]
    ray.kill(hanging)  # a process that is stopped too
    soon(lambda: watch.dead() == [("rollout", 0)])
    soon(lambda: not os.path.exists(f"/proc/{pids[1]}"))
    ray.kill(working)


def test_the_notice_of_another_process_in_the_same_place_says_nothing(ray_cluster: None) -> None:
    before = Rank.options(name="watched-2").remote("critic")
    ray.get(before.pid.remote(), timeout=60)
    ray.kill(before)
    watch = Watch("watched/run", 0.1)
    after = Rank.options(name="watched-3").remote("critic")
    watch.expect(("critic", 0), after)
    time.sleep(0.5)
    watch.poll(("critic",))
    ray.kill(after)
