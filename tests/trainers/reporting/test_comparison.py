"""Several runs on one page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.pictures.browser import Chromium, Page
from configs.errors import ConfigError
from reporting.charts import Chart
from trainers.report import main, report
from trainers.reporting.comparison import (
    changed_settings,
    key_metrics,
    labeled,
    overlays,
    own_sections,
    phase_bars,
    render_comparison,
)
from trainers.reporting.record import Record, read_record

HOSTILE = "<script>alert(1)</script>"


def run(
    runs: Path, name: str, metrics: dict[str, list[float | None]], settings: str = "seed: 0", stage: str = "ppo"
) -> Record:
    """Writes the folder of a run with a line per value, ten seconds apart, and reads it."""
    folder = runs / re.sub("[<>/]", "", name)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"{stage}:\n  name: '{name}'\n  {settings}\n", encoding="utf-8")
    count = max(map(len, metrics.values()), default=0)
    lines = [
        {"step": n + 1, "time": 1000.0 + 10 * n, **{key: row[n] for key, row in metrics.items() if n < len(row)}}
        for n in range(count)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return read_record(folder)


def charts_of(records: dict[str, Record]) -> dict[str, Chart]:
    return {chart.title: chart for charts in overlays(records).values() for chart in charts}


def test_curves_of_all_runs_lie_on_common_axes_in_the_runs_colors(runs: Path) -> None:
    first = run(runs, "a", {"reward": [0.0, 5.0, 10.0]})
    second = run(runs, "b", {"entropy": [1.0]})
    third = run(runs, "c", {"reward": [10.0, 0.0], "entropy": [2.0]})
    charts = charts_of(labeled([first, second, third]))
    assert list(charts) == ["Reward", "Entropy"]
    reward = charts["Reward"]
    assert [(mark.name, mark.color, mark.value) for mark in reward.marks] == [("a", 0, "10"), ("c", 2, "0")]
    assert [mark.line for mark in reward.marks] == ["M0 1000L500 523.8L1000 47.6", "M0 47.6L500 1000"]
    hover = json.loads(reward.hover)
    assert (hover["names"], hover["colors"]) == (["a", "c"], [0, 2])
    assert hover["rows"] == [["0", "10"], ["5", "0"], ["10", ""]]
    assert [(mark.name, mark.color) for mark in charts["Entropy"].marks] == [("b", 1), ("c", 2)]


def test_each_metric_of_a_panel_gets_its_chart_and_what_one_run_has_alone_follows(runs: Path) -> None:
    both = {"response_tokens": [1.0, 2.0], "response_tokens_max": [3.0, 4.0]}
    alone = {"explained_variance": [0.5, 0.6]}
    records = labeled([run(runs, "a", both), run(runs, "b", {**both, **alone})])
    assert list(charts_of(records)) == ["Response length: response_tokens", "Response length: response_tokens_max"]
    own = own_sections(records)
    assert {label: [chart.title for chart in charts] for label, charts in own.items()} == {"b": ["Explained variance"]}
    page = render_comparison([*records.values()])
    assert "Only in b" in page
    assert "Only in a" not in page
    one = {"response_tokens": [1.0]}
    assert list(charts_of(labeled([records["a"], run(runs, "c", {**one})]))) == ["Response length"]


def test_losses_are_overlaid_only_where_they_measure_the_same(runs: Path) -> None:
    metrics: dict[str, list[float | None]] = {"loss": [1.0, 0.5], "seconds": [1.0, 1.0]}
    stages = ("pretrain", "sft", "reward", "dpo")
    records = labeled([run(runs, stage, metrics, stage=stage) for stage in stages])
    charts = charts_of(records)
    assert [mark.name for mark in charts["Loss"].marks] == ["pretrain", "sft"]
    assert [mark.name for mark in charts["Time per step"].marks] == list(stages)
    assert {label: [chart.title for chart in charts] for label, charts in own_sections(records).items()} == {
        "reward": ["Loss"],
        "dpo": ["Loss"],
    }


def test_phases_are_bars_with_each_runs_mean(runs: Path) -> None:
    first = run(runs, "a", {"seconds_generate": [100.0, 200.0], "seconds_update": [30.0, 30.0]})
    second = run(runs, "b", {"seconds_generate": [300.0, 300.0]})
    bars = phase_bars(labeled([first, second]))
    assert bars is not None
    assert [(bar.label, bar.name, bar.color, bar.text) for bar in bars.bars] == [
        ("generate", "a", 0, "2.5 min"),
        ("generate", "b", 1, "5 min"),
        ("update", "a", 0, "30 s"),
    ]
    assert own_sections(labeled([first, second])) == {}
    assert phase_bars(labeled([first, run(runs, "c", {"reward": [1.0]})])) is None


def test_tables_show_final_metrics_and_only_settings_that_differ(runs: Path) -> None:
    first = run(runs, "a", {"reward": [n / 10 for n in range(1, 21)]}, "seed: 0\n  lr: 1e-5\n  critic: null")
    second = run(runs, "b", {"kl_to_reference": [0.5]}, "seed: 0\n  lr: 2e-5\n  critic: {lr: 0.1}")
    other = run(runs, "c", {"loss": [0.5, None]}, "seed: 1\n  epochs: 2", stage="sft")
    records = labeled([first, second, other])
    rows = {row.name: row.cells for row in key_metrics(records, now=2000.0).rows}
    assert rows["Reward"] == ["1.95", "–", "–"]
    assert rows["KL to the reference"] == ["–", "0.5", "–"]
    assert rows["Training loss"] == ["–", "–", "not finite"]
    assert rows["stage"] == ["PPO", "PPO", "Supervised fine-tuning"]
    assert rows["time"] == ["3.167 min", "0 s", "10 s"]
    assert {row.name: row.cells for row in changed_settings(records).rows} == {
        "seed": ["0", "0", "1"],
        "lr": ["1e-05", "2e-05", "–"],
        "critic": ["null", "–", "–"],
        "critic.lr": ["–", "0.1", "–"],
    }


def test_runs_of_one_name_are_told_apart_by_their_folders(runs: Path) -> None:
    first = run(runs, "a", {"reward": [1.0]})
    moved = runs / "moved"
    moved.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (moved / name).write_text((first.folder / name).read_text())
    assert list(labeled([first, read_record(moved)])) == [str(first.folder), str(moved)]


def test_what_cannot_be_compared_is_refused(runs: Path) -> None:
    first, second = run(runs, "a", {"reward": [1.0]}), run(runs, "b", {"loss": [1.0]}, stage="sft")
    with pytest.raises(ConfigError, match=r"^a, b: no two of these runs share a metric; report on each run alone$"):
        render_comparison([first, second])
    waiting = run(runs, "c", {})
    with pytest.raises(ConfigError, match=r"^a, c: no two .* share a metric \(c: no step logged yet\); report on"):
        render_comparison([first, waiting])
    with pytest.raises(ConfigError, match=r"/a: is given more than once; give each run once$"):
        report(["runs/a", "runs/b", "runs/a/"])
    with pytest.raises(ConfigError, match=r"^9 runs: a report compares at most 8; give fewer$"):
        labeled([first] * 9)


def test_the_command_writes_the_comparison_next_to_the_first_run(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(runs, "a", {"reward": [1.0]})
    second = run(runs, f"b{HOSTILE}", {"reward": [2.0]})
    main(["runs/a", str(second.folder)])
    assert capsys.readouterr().out == f"report: {first.folder / 'comparison.html'}\n"
    page = (first.folder / "comparison.html").read_text(encoding="utf-8")
    assert not (first.folder / "report.html").exists()
    assert HOSTILE not in page
    assert page.count("<script>") == 1
    assert "src=" not in page


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(runs: Path, chromium: Chromium, width: int, scheme: str) -> None:
    names = [f"{letter}-rather-long-name/{'x' * 40}" for letter in "abcdefgh"]
    metrics: dict[str, list[float | None]] = {"reward": [0.0, 1.0], "seconds_update": [1.0, 2.0], "loss": [None, 1.0]}
    records = [
        run(runs, name, metrics, f"lr: {n}\n  data: [{'y' * 60}, {n}]", "sft" if n else "ppo")
        for n, name in enumerate(names)
    ]
    page = Page(chromium, width, 900, "en-US", scheme)
    try:
        page.show(report([str(record.folder) for record in records]))
        assert page.overflow() == 0
        assert page.faint() == []
        assert page.evaluate("[...document.querySelectorAll('.wide')].every((box) => box.clientWidth <= innerWidth)")
        page.evaluate("document.querySelector('.plot').focus()")
        page.command("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
        assert page.texts("#tip p") == [f"{name} 0" for name in names]
        swatches = page.evaluate(
            "[...document.querySelectorAll('#tip p b, header .legend b')].map((e) => getComputedStyle(e).backgroundColor)"
        )
        assert swatches[:8] == swatches[8:]
        assert len(set(swatches)) == 8
        assert page.complaints() == []
    finally:
        page.close()
