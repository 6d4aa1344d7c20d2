"""The key metrics of a run: what its command prints at the end is what the list of runs shows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainers.list_runs import list_runs
from trainers.reporting.ending import ending


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """An SFT run whose evaluations are not in the last line of its metrics."""
    folder = tmp_path / "sft"
    folder.mkdir()
    (folder / "config.yaml").write_text(json.dumps({"sft": {"name": "sft"}}))
    lines = [
        {"step": 1, "loss": 3.0, "lr": 0.1, "heldout_loss": 2.5, "eval/cmmlu_accuracy": 0.25},
        {"step": 2, "loss": 2.0, "lr": 0.2, "heldout_loss": 1.5, "heldout_loss/qa": 1.0, "eval/cmmlu_accuracy": 0.375},
        {"step": 3, "loss": 1.23456, "lr": 0.3, "tokens_per_second": 1000.0, "eval/cmmlu_accuracy": None},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return SimpleNamespace(path=folder, config=SimpleNamespace(recipe_key="sft"))


def test_a_stage_ends_with_the_last_values_of_its_key_metrics_and_what_to_do_next(run: Any) -> None:
    lines = [line.split(maxsplit=1) for line in ending(run).splitlines()]
    assert lines[:4] == [
        ["heldout_loss", "1.5"],
        ["loss", "1.235"],
        ["tokens_per_second", "1000"],
        ["eval/cmmlu_accuracy", "0.375"],
    ]
    assert [line[0] for line in lines[4:]] == ["chimed", "chimed", "chimed", "sft:"]
    assert lines[-1] == ["sft:", f"done, {run.path / 'model'}"]


def test_the_list_of_runs_shows_the_first_of_them(run: Any) -> None:
    (row,) = list_runs(run.path.parent)
    assert row.metrics == {"heldout_loss": 1.5, "loss": 1.23456}


def test_a_run_without_metrics_ends_with_the_commands(run: Any) -> None:
    (run.path / "metrics.jsonl").unlink()
    run.config.recipe_key = "reward"
    assert [line.split()[0] for line in ending(run).splitlines()] == ["chimed", "reward:"]
