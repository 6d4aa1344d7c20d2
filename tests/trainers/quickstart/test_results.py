"""What the quickstart prints and writes, from the results of its evaluations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pictures.browser import Chromium, Page
from evals.options import parse
from evals.report.table import build_table
from evals.tasks.registry import TASKS
from trainers.quickstart.page import CURVES, to_html
from trainers.quickstart.results import EVALUATIONS, MODELS, answers_of, read_results
from trainers.quickstart.show import PURPOSES, before_and_after

HOSTILE = "<script>alert(1)</script>"
LEVELS = {name: level for level, name in enumerate(MODELS, start=1)}


def metrics(task: str, level: float) -> dict[str, Any]:
    """A task's metrics; the larger the level, the larger each value."""
    samples = [
        {"question": f"问题{n}？", "reference": f"参考{n}", "answer": f"第{level}级的回答{n}\n{HOSTILE}" + "长" * 200}
        for n in range(3)
    ]
    subscales = {"benevolence": {"mean": 3.0 + level / 10, "interval": [3.0, 4.0], "ends": [1.0, 5.0]}}
    titles = {"benevolence": {"title": "仁慈", "high": "tolerant"}}
    found: dict[str, dict[str, Any]] = {
        "perplexity": {"perplexity": 100.0 / level},
        "choice": {"accuracy": level / 10},
        "ner": {"f1": level / 10},
        "open": {"rouge_l": level / 10, "samples": samples},
        "pairwise": {"accuracy": 0.9, "length_baseline": 0.55},
        "reward": {"mean": -1.0 * level, "std": 0.5},
        "kl": {"per_sequence": level / 4},
        "cami": {
            "likelihood": {"subscales": subscales, "letters": {"A": 0.0, "B": 1.0}, "favorite": "B"},
            "titles": titles,
        },
    }
    return found[task]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A quickstart's folder after its last evaluation."""
    folder = tmp_path / "quickstart"
    (folder / "evals").mkdir(parents=True)
    for evaluation in EVALUATIONS.values():
        models = {
            name: {
                "model": str(folder / MODELS[name]),
                "tasks": {
                    task: metrics(task, LEVELS[name])
                    for task in evaluation.tasks
                    if (name == "reward") == (task == "pairwise")
                },
            }
            for name in evaluation.models
        }
        evaluation.path(folder).write_text(json.dumps({"models": models}), encoding="utf-8")
    for stage, metric in CURVES:
        (folder / stage).mkdir()
        (folder / stage / "config.yaml").write_text(f"{stage}:\n  name: quickstart/{stage}\n", encoding="utf-8")
        lines = [{"step": step, "time": 1000.0 + step, metric: 1.0 / step} for step in range(1, 20)]
        (folder / stage / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_every_column_of_the_table_is_measured_once(root: Path) -> None:
    """Together, the evaluations after the stages give every model every task, and none twice."""
    asked = [(name, task) for each in EVALUATIONS.values() for name in each.models for task in each.tasks]
    languages = [(name, task) for name, task in asked if (name == "reward") == (task == "pairwise")]
    assert len(set(languages)) == len(languages)
    table = build_table(read_results(root), dict.fromkeys(("pretrain", "sft", "reward", "ppo"), 60.0), 2**30)
    assert [row["kl_to_sft"] for row in table["rows"]] == [0.25, 0.5, 0.75, 1.25]
    assert all(task in TASKS or task == "cami" for _, task in asked)
    assert set(PURPOSES) == {"clinic", *EVALUATIONS}


def test_the_command_of_an_evaluation_is_one_that_evals_run_takes(root: Path) -> None:
    arguments = EVALUATIONS["reward"].arguments(root, 3)
    options = parse(arguments)
    assert options.model == [f"{name}={root / MODELS[name]}" for name in ("random", "pretrain", "sft", "reward")]
    assert (options.tasks, options.seed) == ("pairwise,reward,kl", 3)
    assert (options.reward_model, options.reference) == (str(root / "reward/model"), str(root / "sft/model"))
    assert options.json == str(root / "evals/reward.json")


def test_after_a_stage_its_row_and_the_same_questions_before_and_after(root: Path) -> None:
    for stage in ("reward", "ppo"):
        EVALUATIONS[stage].path(root).unlink()
    text = before_and_after("sft", read_results(root))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [re.split(r"\s*\|\s*", row)[1] for row in rows] == ["stage", "-" * 16, "random weights", "pretrained", "SFT"]
    assert re.split(r"\s*\|\s*", rows[-1])[2:8] == ["33.33", "0.300", "0.300", "0.300", "", ""]
    assert text.count("问题") == 3
    said = [line.strip() for line in text.splitlines() if "级的回答0" in line]
    assert [line.partition(":")[0] for line in said] == ["pretrained", "SFT"]
    assert all(len(line.partition(": ")[2]) == 100 and line.endswith("…") for line in said)


def test_after_the_reward_model_earlier_models_have_rewards_and_no_answers_are_repeated(root: Path) -> None:
    EVALUATIONS["ppo"].path(root).unlink()
    text = before_and_after("reward", read_results(root))
    assert "-3.00 ± 0.50" in text
    assert "Reward model: 0.900 accuracy on held-out pairs; by length alone: 0.550." in text
    assert "问题" not in text


def test_the_page_has_table_curves_answers_and_attitudes_and_texts_cannot_run(root: Path) -> None:
    page = page_of(root)
    assert HOSTILE not in page
    assert page.count("<figure") == len(CURVES) + 2
    assert [page.count(f"第{level}级的回答") for level in LEVELS.values()] == [3, 3, 3, 0, 3]
    assert "-5.00 ± 0.50" in page
    assert "240 s" in page or "4 min" in page
    assert re.findall(r'<li class="c\d"><b></b>([^<]+)</li>', page) == ["SFT", "PPO"]
    assert "chooses the letter B in 100% of all rotations" in page
    assert len(answers_of(read_results(root))) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_fits_its_window(root: Path, chromium: Chromium, width: int, scheme: str) -> None:
    (root / "report.html").write_text(page_of(root), encoding="utf-8")
    page = Page(chromium, width, 900, "en", scheme)
    try:
        page.show(root / "report.html")
        assert page.overflow() == 0
        assert page.faint() == []
    finally:
        page.close()


def page_of(root: Path) -> str:
    models = read_results(root)
    table = build_table(models, dict.fromkeys(("pretrain", "sft", "reward", "ppo"), 60.0), 2**30)
    return to_html(root, table, models, now=0)
