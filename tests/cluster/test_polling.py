from __future__ import annotations

import threading
import time

import pytest

from cluster.polling import PollingThread


class Counted(PollingThread):
    """Counts its calls, and says when there were three; each takes `takes_s`."""

    def __init__(self, seconds: float, takes_s: float = 0.0, stop_timeout_s: float | None = None) -> None:
        super().__init__("counted", seconds, stop_timeout_s)
        self.calls, self.takes_s, self.third = 0, takes_s, threading.Event()

    def poll(self) -> None:
        assert threading.current_thread().name == "counted"
        self.calls += 1
        if self.calls == 3:
            self.third.set()
        time.sleep(self.takes_s)


def test_it_polls_until_the_block_ends() -> None:
    with Counted(0.01) as counted:
        assert counted.third.wait(10)
    calls = counted.calls
    time.sleep(0.05)
    assert counted.calls == calls
    assert not counted._thread.is_alive()


def test_the_first_poll_comes_after_the_interval_and_stopping_does_not_wait_for_one() -> None:
    began = time.monotonic()
    with Counted(60) as counted:
        pass
    assert counted.calls == 0
    assert time.monotonic() - began < 10


def test_it_stops_when_the_block_raises() -> None:
    with pytest.raises(ValueError, match="in the block"), Counted(0.01) as counted:
        raise ValueError("in the block")
    assert not counted._thread.is_alive()


def test_stopping_waits_for_a_call_in_progress_only_so_long() -> None:
    counted = Counted(0.01, takes_s=2.0, stop_timeout_s=0.05).start()
    while counted.calls == 0:
        time.sleep(0.01)
    began = time.monotonic()
    counted.stop()
    assert time.monotonic() - began < 1.5
    assert counted._thread.is_alive()
