"""The three contenders of the pretraining benchmark do the same work, on every ZeRO stage of ours that is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pretraining.__main__ import figures
from benchmarks.pretraining.workload import WARM_UP, Workload

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--hidden=64", "--layers=2", "--block-tokens=256", "--steps=2", "--rounds=1", "--threads=1")


@pytest.mark.extra
@pytest.mark.parametrize(("dtype", "stage", "apart"), [("float32", 3, 1e-4), ("bfloat16", 0, 1e-2)])
def test_all_do_the_same_work(dtype: str, stage: int, apart: float, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    asked = [*SMALL, f"--dtype={dtype}", f"--stage={stage}", f"--json={answer}"]
    command = [sys.executable, "-m", "benchmarks.pretraining", *asked]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(answer.read_text())[dtype]
    assert all(len(steps) == 2 and min(steps) > 0 for (steps,) in found["seconds"].values())
    speed = found["tokens_per_second"]
    assert found["ours_vs_loop"] == pytest.approx(speed["ours"] / speed["loop"])
    assert found["ours_vs_trainer"] == pytest.approx(speed["ours"] / speed["trainer"])
    assert max(found["loss_difference"].values()) < apart


def test_a_minute_in_which_the_machine_is_fast_counts_for_both() -> None:
    """The loop is a tenth faster than ours, in a round in which the machine is three times as fast, too.

    Where it gets faster between the two of a round, that round does not decide.
    """
    workload = Workload("float32", threads=1, steps=4, rounds=2)

    def found(*seconds: float) -> list[dict[str, object]]:
        many = WARM_UP + 4
        same = {"losses": [1.0] * many, "mfu": [0.5] * many, "peak_memory_bytes": [7.0], "parameters": 3}
        return [{**same, "seconds": [99.0] * WARM_UP + [each] * 4} for each in seconds]

    answer = figures({"ours": found(1.1, 3.3), "loop": found(1.0, 3.0), "trainer": found(11.0)}, workload)
    assert answer["by_round"] == pytest.approx([1 / 1.1, 1 / 1.1])
    assert answer["ours_vs_loop"] == pytest.approx(1 / 1.1)
    assert answer["tokens_per_second"]["trainer"] == pytest.approx(4096 / 11)
    lucky = figures({"ours": found(3.3, 3.3, 3.3), "loop": found(3.0, 3.0, 1.0), "trainer": found(11.0)}, workload)
    assert lucky["ours_vs_loop"] == pytest.approx(1 / 1.1)
