from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import soak as module
from benchmarks.soak import EVALUATED_S, FILES, SAMPLE_S, WARM_UP_S, Evaluation, Sample, evaluate, soak

MIB = 2**20
SAMPLES = int((WARM_UP_S + 2 * EVALUATED_S) / SAMPLE_S)


def life(memory_mib: list[float], files: int = 10, more_files: int = 0) -> list[Sample]:
    last = len(memory_mib) - 1
    return [
        Sample(100 + SAMPLE_S * n, int(mib * MIB), files + (more_files if n > last // 2 else 0))
        for n, mib in enumerate(memory_mib)
    ]


def evaluated(samples: list[Sample]) -> Evaluation:
    found = evaluate("driver", samples)
    assert found is not None
    return found


def test_growth_before_the_warm_up_does_not_count() -> None:
    warm = int(WARM_UP_S / SAMPLE_S)
    one = evaluated(life([100.0 + min(n, warm) for n in range(SAMPLES)]))
    assert one.memory_mib == (100.0 + warm, 100.0 + warm)
    assert one.growth == 0.0
    assert one.flat


@pytest.mark.parametrize(("mib_a_minute", "flat"), [(0.3, True), (3.0, False)])
def test_growth_after_it_does(mib_a_minute: float, flat: bool) -> None:
    assert evaluated(life([100.0 + mib_a_minute / 60 * SAMPLE_S * n for n in range(SAMPLES)])).flat is flat


def test_a_process_whose_memory_comes_and_goes_with_its_turns_is_flat() -> None:
    """Busy for a bit less than half of the time, then for a bit more: a median would leap from one level to the other."""
    busy = [48] * (SAMPLES // 2) + [52] * (SAMPLES - SAMPLES // 2)  # of 100 samples
    one = evaluated(life([180.0 if 37 * n % 100 < busy[n] else 100.0 for n in range(SAMPLES)]))
    assert 0 < one.growth < 0.04
    assert one.flat


def test_files_that_stay_open_do() -> None:
    assert evaluated(life([100.0] * SAMPLES, more_files=FILES)).flat
    assert not evaluated(life([100.0] * SAMPLES, more_files=FILES + 1)).flat


def test_a_process_that_soon_died_is_not_judged() -> None:
    assert evaluate("Policy", life([100.0] * int(WARM_UP_S / SAMPLE_S))) is None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="no bash, which can give a process a title")
def test_only_roles_of_the_run_are_killed_and_a_driver_that_does_not_end_loses_no_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = tmp_path / "driver"
    driver.write_text(
        "#!/bin/bash\n"
        "trap '' TERM\n"
        "for role in Rollout Policy; do (exec -a ray::$role sleep 20) & done\n"
        "while :; do sleep 0.05; done\n"
    )
    driver.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(driver))
    monkeypatch.setattr(module, "SAMPLE_S", 0.05)
    monkeypatch.setattr(module, "STOP_S", 0.3)
    roles = ("policy", "critic", "reward_function")  # the rollout is another run's, and the critic has not started
    assert not soak([], tmp_path / "runs" / "t", roles, seconds=2.0, kill_every=0.3)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2].split(";")[0] for line in printed if "killed " in line] == ["killed Policy"]
    assert "the driver did not end within 0.3 s of SIGTERM and is killed" in printed
    assert printed[-1].startswith("minutes=0.0333333 steps=0 kills=1 survived=0 processes=0 ")
    assert printed[-1].endswith(" exit=None")
    seen = json.loads((tmp_path / "runs" / "t.samples.json").read_text())
    assert {"driver", "Rollout", "Policy"} <= {one["process"] for one in seen}
    assert all(len(sample) == 3 and sample[1] > 0 for one in seen for sample in one["samples"])
