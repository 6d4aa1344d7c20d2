from __future__ import annotations

import time
from threading import Event, Thread

import pytest

from actors.inference.fair_lock import FairLock


def test_who_asks_comes_before_the_loop_that_has_the_turn() -> None:
    lock, stop, laps = FairLock(), Event(), [0]

    def loop() -> None:
        while not stop.is_set():
            with lock:
                laps[0] += 1
                time.sleep(0.01)

    thread = Thread(target=loop)
    thread.start()
    while not laps[0]:
        time.sleep(0.001)
    waited = []
    for _ in range(10):
        before = laps[0]
        with lock:
            waited.append(laps[0] - before)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert max(waited) <= 1


def test_another_thread_may_give_the_turn_back_and_nobody_twice() -> None:
    lock = FairLock()
    lock.acquire()
    Thread(target=lock.release).start()
    with lock:
        pass
    with pytest.raises(RuntimeError):
        lock.release()
