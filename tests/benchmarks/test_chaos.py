from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos.disturbed import Timeline
from benchmarks.chaos.plan import NOTICE, SLOTS, TARGETS, draw
from benchmarks.chaos.workload import PHASES

ROOT = Path(__file__).resolve().parents[2]


def test_a_full_plan_has_every_target_in_every_phase_and_a_hang_of_every_role() -> None:
    plan = draw(runs=21, seed=7)
    faults = [fault for run in plan for fault in run]
    assert len(faults) == 63
    assert {(fault.target, fault.phase) for fault in faults if fault.signal == "SIGKILL"} == {
        (target, phase) for target in TARGETS for phase in PHASES
    }
    hung = sorted(fault.target[0] for fault in faults if fault.signal == "SIGSTOP")
    assert hung == ["critic", "policy", "reference", "reward", "rollout"]
    notices = sorted(fault.phase for fault in faults if fault.signal == NOTICE)
    assert notices == ["generate", "update"]
    for run in plan:
        assert [fault.step for fault in run] == list(SLOTS)
        assert all(fault.phase != "checkpoint" for fault in run[2:]) or run[1].phase == "checkpoint"
    assert draw(runs=21, seed=7) == plan != draw(runs=21, seed=8)


def test_what_a_blow_cost_is_the_time_until_the_next_less_what_that_takes_undisturbed() -> None:
    whole = Timeline(began=0.0, ended=10.0, reached={(0, 0): 1.0, (1, 2): 4.0, (3, 0): 7.0})
    first, second = (run for run in draw(1, 0, 2)[0])
    timeline = Timeline(began=100.0, ended=130.0, injected=[(first, (1, 2), 105.0), (second, (3, 0), 115.0)])
    assert timeline.lost(whole) == [10.0 - 3.0, 15.0 - 3.0]


@pytest.mark.extra
def test_a_disturbed_run_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--runs=1", "--kills=1", "--seed=3", "--no-hangs"]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path)], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert re.search(r"^seed 3: 1 runs, 1 faults; ", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "kills=1 runs=1 identical=1 prompts_lost=0 prompts_doubled=0"
