"""Which panel, section, and unit each stage's metrics have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainers.reporting.page import cards, sections
from trainers.reporting.record import Record, read_record
from trainers.runs.panels import OTHER


@pytest.fixture
def folder(runs: Path) -> Path:
    path = runs / "a"
    path.mkdir(parents=True)
    return path


def record_of(folder: Path, stage: str, *lines: dict[str, float]) -> Record:
    (folder / "config.yaml").write_text(f"{stage}:\n  name: a\n", encoding="utf-8")
    logged = [json.dumps({"step": step, **line}) + "\n" for step, line in enumerate(lines, start=1)]
    (folder / "metrics.jsonl").write_text("".join(logged), encoding="utf-8")
    return read_record(folder)


def test_metrics_of_dpo_are_preferences(folder: Path) -> None:
    pairs = ("accuracy", "margin", "chosen_reward", "rejected_reward")
    metrics = {name: 0.5 for pair in pairs for name in (pair, f"heldout_{pair}")}
    found = sections(record_of(folder, "dpo", {**metrics, "loss": 0.6, "heldout_loss": 0.7}))
    assert [*found] == ["Outcome", "Preferences"]
    assert {chart.title: [mark.name for mark in chart.marks] for chart in found["Preferences"]} == {
        "Pairs ranked correctly": ["accuracy", "heldout_accuracy"],
        "Margin": ["margin", "heldout_margin"],
        "Implicit rewards": ["chosen_reward", "heldout_chosen_reward", "rejected_reward", "heldout_rejected_reward"],
    }


def test_metrics_of_rejection_sampling_have_their_section(folder: Path) -> None:
    metrics = {"round": 0, "reward": 0.5, "truncated": 0.25, "response_tokens": 9.0, "seconds": 2.0}
    record = record_of(folder, "rejection", {**metrics, "tokens_per_second": 5.0})
    found = sections(record)
    assert OTHER not in found
    titles = {chart.title: chart.marks[0].value for section in found.values() for chart in section}
    assert {name: titles[name] for name in ("Round", "Truncated")} == {"Round": "0", "Truncated": "25%"}
    assert {card.title: card.value for card in cards(record)}["Truncated"] == "25%"


def test_values_have_units(folder: Path) -> None:
    first = {"seconds": 90.0, "seconds_update": 90.0, "peak_memory_bytes": 2**31, "tokens_per_second": 1500.0}
    second = {"seconds": 150.0, "seconds_update": 150.0, "peak_memory_bytes": 3 * 2**30, "tokens_per_second": 900.0}
    record = record_of(folder, "sft", first, second)
    charts = {chart.title: chart for chart in sections(record)["Time"]}
    assert {title: (chart.unit, chart.marks[0].value) for title, chart in charts.items()} == {
        "Time per step, by phase": ("min", "2 min, 100%"),
        "Throughput": ("tokens/s", "900 tokens/s"),
        "Time per step": ("min", "2.5 min"),
        "Peak memory": ("GiB", "3 GiB"),
    }
    assert [text for *_, rows in charts["Peak memory"].points for text in rows] == ["2 GiB", "3 GiB"]
    assert [text for _, text in charts["Time per step"].y_ticks] == ["1.5", "2", "2.5"]
    assert [(card.title, card.value, card.unit, card.before) for card in cards(record)] == [
        ("Throughput", "900", "tokens/s", "1,500")
    ]
