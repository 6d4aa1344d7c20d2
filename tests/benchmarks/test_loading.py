from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.extra
def test_a_rank_reads_its_share_and_the_same_weights() -> None:
    command = [sys.executable, "-m", "benchmarks.loading", "--layers=2"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(line["way"], line["rank"]) for line in lines] == [
        (way, rank) for way in ("float32", "bfloat16", "shards") for rank in (0, 1)
    ]
    whole, shards = (
        max(line["bytes_per_parameter"] for line in lines if line["way"] == way) for way in ("float32", "shards")
    )
    assert whole >= 4.0
    assert shards < 2.5  # its half in bfloat16, and at this size as much for the largest parameter
