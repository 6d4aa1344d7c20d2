"""Families whose weights vLLM takes in other ways than Llama's are published to a running engine."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.long
def test_families_are_trained_exported_and_published_exactly() -> None:
    families = ["qwen3_moe", "mixtral", "gemma2"]  # experts, other names, a tied head without a module
    command = [sys.executable, "-m", "benchmarks.families", *families, "--vllm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["family", "---", *families]
    assert all(0.0 < float(cell) < 1e-4 for row in rows[2:] for cell in row[1:]), rows
