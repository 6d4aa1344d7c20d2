from __future__ import annotations

import io

import pytest

from trainers.runs import progress
from trainers.runs.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    time = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return time


def test_plain_lines_come_every_ten_seconds_and_at_the_end(now):
    out = io.StringIO()
    with Progress("sft", total=40, show=("loss",), out=out) as bar:
        for step in range(1, 41):
            now[0] += 1.0
            bar.update(step, {"loss": 2.0 / step, "hidden": 1.0})
    assert out.getvalue().splitlines() == [
        "sft  1/40  eta 0:39  loss 2",
        "sft  11/40  eta 0:29  loss 0.1818",
        "sft  21/40  eta 0:19  loss 0.09524",
        "sft  31/40  eta 0:09  loss 0.06452",
        "sft  40/40  eta 0:00  loss 0.05",
    ]


def test_steps_of_an_earlier_process_do_not_count_towards_the_speed(now):
    bar = Progress("ppo", total=20, start=10, out=io.StringIO())
    with bar:
        now[0] += 4.0
        assert bar.seconds_left(10) is None
        assert bar.seconds_left(12) == 16.0
        assert bar.seconds_left(20) == 0.0


def test_a_terminal_gets_a_bar():
    out = Terminal()
    with Progress("ppo", total=4, show=("kl",), out=out) as bar:
        bar.update(4, {"kl": 0.25})
    assert "ppo" in out.getvalue()
    assert "4/4  eta 0:00  kl 0.25" in out.getvalue()


def test_the_clock():
    assert [clock(seconds) for seconds in (None, 0.4, 59.6, 61, 3723)] == ["-:--", "0:00", "1:00", "1:01", "1:02:03"]
