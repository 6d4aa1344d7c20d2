from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu_check.__main__ import main
from benchmarks.gpu_check.checks import CHECKS, Check
from benchmarks.gpu_check.runner import CPU_PATIENCE, run_checks


@pytest.mark.slow
def test_a_check_that_hangs_or_dies_costs_only_itself() -> None:
    names = ("right", "wrong", "hangs", "skipped", "dies", "right")
    checks = [Check(name, "odd_checks", 1.0, "a test") for name in names]
    results = list(run_checks(checks, "cpu"))
    assert [result["check"] for result in results] == list(names)
    assert [result["status"] for result in results] == ["passed", "failed", "failed", "skipped", "failed", "passed"]
    assert results[0]["gpu"] is False
    assert "AssertionError: 2 is not 3" in results[1]["error"]
    assert results[2]["error"] == f"took longer than its limit of {CPU_PATIENCE} s"
    assert results[3]["error"] == "nothing to check"
    assert results[4]["error"] == "its process ended with status 7"


def test_checks_are_listed_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CHECKS)


@pytest.mark.extra
def test_all_checks_pass_on_a_cpu(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    assert main(["--device", "cpu", "--json", str(file)]) == 0
    results = {result["check"]: result for result in map(json.loads, file.read_text().splitlines())}
    assert {name: result["status"] for name, result in results.items()} == dict.fromkeys(CHECKS, "passed")
    assert results["learn"]["kl"] == 0.0
    assert results["zero"]["largest_difference"]["float32"] < 1e-4
