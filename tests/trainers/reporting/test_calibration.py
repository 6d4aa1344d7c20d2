"""Charts of a reward model's held-out evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError
from trainers.report import report as write_report
from trainers.reporting.calibration import read_evaluation, reliability_diagram, score_histogram
from trainers.supervised.reward_metrics import Scored, report


@pytest.fixture
def folder(runs: Path) -> Path:
    """The folder of a reward model with four held-out pairs, of which three are ranked correctly."""
    chosen, rejected = np.array([1.0, 2.0, 0.0, 3.0]), np.array([0.0, 1.0, 1.0, 0.0])
    scored = Scored(chosen, rejected, chosen, rejected, np.array([""] * 4))
    path = runs / "rm"
    (path / "model").mkdir(parents=True)
    (path / "config.yaml").write_text("reward:\n  name: rm\n")
    (path / "metrics.jsonl").write_text('{"step": 1, "heldout_accuracy": 0.75}\n')
    content = {"step": 1, "metrics": {}, "report": report(scored)}
    (path / "model" / "evaluation.json").write_text(json.dumps(content))
    return path


def test_reliability_is_accuracy_by_confidence(folder: Path) -> None:
    evaluation = read_evaluation(folder, "reward")
    assert evaluation is not None
    chart = reliability_diagram({"accuracy": evaluation})
    # Three pairs differ by 1, confidence 1 / (1 + e^-1), two of them right; one differs by 3.
    assert [(heading, texts) for _, heading, texts in chart.points] == [
        ("confidence 73.1%", ["66.7% of 3", ""]),
        ("confidence 95.3%", ["100% of 1", ""]),
    ]
    curve, diagonal = chart.marks
    assert (curve.name, curve.value, curve.line) == ("accuracy", "4 pairs", "M462.1 666.7L905.1 0")
    assert (diagonal.reference, diagonal.line) == (True, "M0 1000L1000 0")
    assert chart.x_ticks[0] == (0.0, "50%")


def test_histogram_has_the_files_counts(folder: Path) -> None:
    evaluation = read_evaluation(folder, "reward")
    assert evaluation is not None
    chart = score_histogram(evaluation)
    assert chart.note.startswith("4 held-out pairs, ")
    assert [(mark.name, mark.value) for mark in chart.marks] == [("chosen", "mean 0.5"), ("rejected", "mean −0.5")]
    assert chart.points[0][2] == ["1 of 4", "2 of 4"]
    assert [sum(int(texts[side].split()[0]) for *_, texts in chart.points) for side in (0, 1)] == [4, 4]


def test_the_report_of_a_reward_model_and_comparisons_have_them(folder: Path, runs: Path) -> None:
    page = write_report([str(folder)]).read_text(encoding="utf-8")
    assert page.count("<h3>Reliability</h3>") == page.count("<h3>Scores of responses</h3>") == 1
    assert page.count('<g class="reference">') == 1
    other = runs / "other"
    other.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (other / name).write_text((folder / name).read_text().replace("name: rm", "name: other"))
    page = write_report([str(folder), str(other)]).read_text(encoding="utf-8")
    assert page.index("Only in rm") < page.index("<h3>Reliability</h3>")
    (other / "best" / "step-00000001").mkdir(parents=True)
    (other / "best" / "step-00000001" / "evaluation.json").write_text((folder / "model/evaluation.json").read_text())
    page = write_report([str(folder), str(other)]).read_text(encoding="utf-8")
    assert page.index("<h3>Reliability</h3>") < page.index("Only in rm")
    assert page.count("<h3>Scores of responses</h3>") == 2


def test_other_stages_and_unfinished_runs_have_none(folder: Path) -> None:
    assert read_evaluation(folder, "dpo") is None
    (folder / "model" / "evaluation.json").unlink()
    assert read_evaluation(folder, "reward") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"pairs": 3', '"pairs": "x"', r"evaluation.json: report.reliability.0.pairs: Input should be a valid integer"),
        ('"accuracy": 1.0', '"accuracy": NaN', r"report.reliability.1.accuracy: Input should be a finite number"),
        ('"histogram": [', '"histogram": [1, ', r"report: Value error, each histogram must have one count per bin"),
        ("}", "", r"evaluation.json: the file: Invalid JSON"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / "model" / "evaluation.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_evaluation(folder, "reward")
