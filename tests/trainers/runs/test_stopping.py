from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from trainers.runs.stopping import Stopped, StopRequests


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interruptible(stop: StopRequests, *work: Callable[[], object]) -> None:
    with stop.may_interrupt():
        for part in work:
            part()


def test_a_request_is_heard_in_the_middle_of_what_may_be_interrupted() -> None:
    before, done = signal.getsignal(signal.SIGTERM), []
    with StopRequests() as stop:
        with pytest.raises(Stopped) as end:
            interruptible(stop, ask, lambda: done.append("generated"))
        assert (end.value.code, end.value.reason) == (75, "SIGTERM")
    assert done == []
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_request_is_heard_while_ray_is_waited_for(ray_cluster: None, number: signal.Signals, status: int) -> None:
    """Ray raises SystemExit(1) instead of what a signal's handler raises in `ray.wait` and other calls."""
    import ray

    from cluster.waiting import get

    @ray.remote
    def forever() -> None:
        time.sleep(600)

    pending = forever.remote()
    with StopRequests() as stop:
        threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
        with pytest.raises(Stopped) as end:
            interruptible(stop, lambda: get([pending], "forever", 60.0))
    ray.cancel(pending, force=True)
    assert (end.value.code, end.value.reason) == (status, number.name)


def test_ctrl_c_has_an_exit_status_of_its_own() -> None:
    with StopRequests() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped) as end:
            stop.check()
    assert (end.value.code, end.value.reason) == (130, "SIGINT")


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    program = (
        "import os, signal\n"
        "from trainers.runs.stopping import StopRequests\n"
        "with StopRequests():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('never', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (130, "still here\n")
    assert done.stderr == "interrupted again: ending without a checkpoint of the current step\n"


def test_a_request_waits_for_what_may_not_be_interrupted() -> None:
    done = []
    with StopRequests() as stop:
        ask()
        done.append("learned")
        with pytest.raises(Stopped):
            interruptible(stop, lambda: done.append("generated"))
    assert done == ["learned"]


def test_what_is_held_is_done_to_its_end() -> None:
    done = []
    with StopRequests() as stop:

        def replace() -> None:
            with stop.held():
                ask()
                done.append("replaced")

        with pytest.raises(Stopped):
            interruptible(stop, replace, stop.check, lambda: done.append("generated"))
    assert done == ["replaced"]


class Leaving:
    """Tells of a node's end from the second look on."""

    looks = 0

    def leaving(self) -> str | None:
        self.looks += 1
        return "0123456789abcdef" if self.looks > 1 else None


def test_the_notice_of_a_nodes_end_is_a_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainers.runs.stopping._POLL_S", 0.05)
    with StopRequests() as stop:
        stop.watch_nodes(Leaving())  # type: ignore[arg-type]
        with pytest.raises(Stopped) as end:
            interruptible(stop, lambda: time.sleep(10))
    assert end.value.reason == "Ray is draining node 01234567, which this run uses"
    assert caplog.messages == [f"{end.value.reason}: finishing or dropping the current step, then saving a checkpoint"]
