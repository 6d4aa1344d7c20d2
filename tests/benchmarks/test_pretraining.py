"""The three contenders of the pretraining benchmark do the same work, on every ZeRO stage of ours that is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--hidden=64", "--layers=2", "--block-tokens=256", "--steps=2", "--rounds=1", "--threads=1")


@pytest.mark.long
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
