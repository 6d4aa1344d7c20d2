from __future__ import annotations

import pytest

from benchmarks.soak import FILES, JUDGED_S, LOOK_S, WARM_UP_S, Judged, Look, judge

MIB = 2**20
LOOKS = int((WARM_UP_S + 2 * JUDGED_S) / LOOK_S)


def life(memory_mib: list[float], files: int = 10, more_files: int = 0) -> list[Look]:
    last = len(memory_mib) - 1
    return [
        Look(100 + LOOK_S * n, int(mib * MIB), files + (more_files if n > last // 2 else 0))
        for n, mib in enumerate(memory_mib)
    ]


def judged(looks: list[Look]) -> Judged:
    found = judge("driver", looks)
    assert found is not None
    return found


def test_growth_before_the_warm_up_does_not_count() -> None:
    warm = int(WARM_UP_S / LOOK_S)
    one = judged(life([100.0 + min(n, warm) for n in range(LOOKS)]))
    assert one.memory_mib == (100.0 + warm, 100.0 + warm)
    assert one.growth == 0.0
    assert one.flat


@pytest.mark.parametrize(("a_look", "flat"), [(0.05, True), (0.5, False)])
def test_growth_after_it_does(a_look: float, flat: bool) -> None:
    assert judged(life([100.0 + a_look * n for n in range(LOOKS)])).flat is flat


def test_files_that_stay_open_do() -> None:
    assert judged(life([100.0] * LOOKS, more_files=FILES)).flat
    assert not judged(life([100.0] * LOOKS, more_files=FILES + 1)).flat


def test_a_process_that_soon_died_is_not_judged() -> None:
    assert judge("Policy", life([100.0] * int(WARM_UP_S / LOOK_S))) is None
