from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_sft_whose_process_group_gets_sigterm_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    options = ["--kills=1", "--targets=group", "--seed=0", "--keep", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.stage_kills", *options]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "sft-00: group" in done.stdout
    assert done.stdout.splitlines()[-1] == "sft: kills=1 runs=1 identical=1"
