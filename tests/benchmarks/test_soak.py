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


@pytest.mark.parametrize(("mib_a_minute", "flat"), [(0.3, True), (3.0, False)])
def test_growth_after_it_does(mib_a_minute: float, flat: bool) -> None:
    assert judged(life([100.0 + mib_a_minute / 60 * LOOK_S * n for n in range(LOOKS)])).flat is flat


def test_a_process_whose_memory_comes_and_goes_with_its_turns_is_flat() -> None:
    """Busy for a bit less than half of the time, then for a bit more: a median would leap from one level to the other."""
    busy = [48] * (LOOKS // 2) + [52] * (LOOKS - LOOKS // 2)  # of 100 looks
    one = judged(life([180.0 if 37 * n % 100 < busy[n] else 100.0 for n in range(LOOKS)]))
    assert 0 < one.growth < 0.04
    assert one.flat


def test_files_that_stay_open_do() -> None:
    assert judged(life([100.0] * LOOKS, more_files=FILES)).flat
    assert not judged(life([100.0] * LOOKS, more_files=FILES + 1)).flat


def test_a_process_that_soon_died_is_not_judged() -> None:
    assert judge("Policy", life([100.0] * int(WARM_UP_S / LOOK_S))) is None
