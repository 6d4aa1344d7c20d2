"""The table of runs: finished, stopped, running, and unreadable ones, with their last metrics."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from storage.durable import json_with_checksum
from trainers.list_runs import list_runs, main, table
from trainers.runs.folder import _locked, in_use

STAGES = {"a/sft": "sft", "a/ppo": "ppo", "b": "dpo"}


@pytest.fixture
def three(runs: Path) -> Path:
    """A finished SFT run of an hour ago, a PPO run at step 3 of 40, and a DPO run without metrics."""
    for number, (name, stage) in enumerate(STAGES.items()):
        folder = runs / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(json.dumps({stage: {"name": name, "steps": 40}}))
        metrics = {"sft": {"loss": 1.25}, "ppo": {"reward": 0.5, "kl_to_reference": 2.0}, "dpo": {}}[stage]
        lines = [{"step": step, "time": 1.7e9 + 3600 * number + step, **metrics} for step in (1, 2, 3) if metrics]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (runs / "a/sft/DONE").write_bytes(json_with_checksum({"steps": 3}))
    return runs


def test_runs_are_listed_by_time_with_state_step_and_metrics(three: Path) -> None:
    rows = list_runs(three)
    assert [(row.name, row.stage, row.state, row.step, row.steps) for row in rows] == [
        ("b", "dpo", "stopped", 0, 40),
        ("a/sft", "sft", "finished", 3, 3),
        ("a/ppo", "ppo", "stopped", 3, 40),
    ]
    assert [row.metrics for row in rows] == [{}, {"loss": 1.25}, {"reward": 0.5, "kl_to_reference": 2.0}]
    assert [row.name for row in list_runs(three, "a/")] == ["a/sft", "a/ppo"]
    header, *lines = table(rows).splitlines()
    assert header.split() == ["run", "stage", "state", "step", "last", "metrics", "key", "metrics"]
    assert lines[0].split() == ["b", "dpo", "stopped", "0/40"]
    assert lines[2].startswith("a/ppo  ppo    stopped   3/40  2023-11-14 23:13 UTC  reward 0.5  kl_to_reference 2")


def test_an_open_run_is_running(three: Path) -> None:
    assert not in_use(three / "a/ppo")
    descriptor = _locked(three / "a/ppo")
    assert in_use(three / "a/ppo")
    assert [row.state for row in list_runs(three, "ppo")] == ["running"]

    os.close(descriptor)
    assert not in_use(three / "a/ppo")


def test_a_damaged_run_is_listed_with_the_reason(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (three / "b/metrics.jsonl").write_text("no json\n")
    (row,) = list_runs(three, "b")
    assert row.state == f"unreadable: {three}/b/metrics.jsonl:1: is not valid JSON; repair or remove the line"
    main(["--json", "ppo"])
    assert json.loads(capsys.readouterr().out)["name"] == "a/ppo"
    main(["nothing"])
    assert capsys.readouterr().err == f"python -m trainers.list_runs: no run in {three} with nothing in its name\n"
