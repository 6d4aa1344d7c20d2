from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.pictures.curves import STAGES, Panel, draw, quickstart_panels
from configs.errors import DataError

SVG = "{http://www.w3.org/2000/svg}"


def write_run(run: Path, metric: str, values: list[float]) -> None:
    run.mkdir(parents=True)
    lines = [{"step": step, "time": 0.0, metric: value} for step, value in enumerate(values, start=1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_each_stage_has_a_panel_with_its_first_and_last_value(tmp_path: Path) -> None:
    for stage, metric, *_ in STAGES:
        write_run(tmp_path / stage, metric, [0.25, 0.5, 0.75])
    root = ET.fromstring(draw(quickstart_panels(tmp_path)))
    title = root.findtext(f"{SVG}title")
    assert title is not None
    assert "Continued pretraining: perplexity of held-out text, from 0.25 to 0.75" in title
    assert "Reward model: accuracy on held-out pairs, from 25% to 75%" in title
    assert len(root.findall(f"{SVG}path")) == len(STAGES)


def test_a_curve_runs_from_corner_to_corner_of_its_plot() -> None:
    root = ET.fromstring(draw([Panel("甲", "", [(1, 0.0), (2, 1.0)], share=True)]))
    path = root.find(f"{SVG}path")
    assert path is not None
    assert path.get("d") == "M46.0 176.0L232.0 58.0"


def test_a_run_without_the_metric_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "pretrain", "loss", [1.0, 2.0])
    with pytest.raises(DataError, match="pretrain: metrics.jsonl has fewer than two values of heldout_perplexity"):
        quickstart_panels(tmp_path)
