from __future__ import annotations

import time

from trainers.runs.phases import Phases


def test_seconds_of_a_phase_add_up_and_stay_apart() -> None:
    phases = Phases()
    for _ in range(2):
        with phases("update"):
            time.sleep(0.02)
    with phases("publish"):
        pass
    assert list(phases.seconds) == ["update", "publish"]
    assert phases.seconds["update"] >= 0.04 > phases.seconds["publish"]
