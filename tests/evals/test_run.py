from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.inference.engine import Engine
from evals.run import _check_finite, main
from evals.tasks.registry import TASKS

LANGUAGE = ("perplexity", "choice", "ner", "open", "reward", "kl")


@pytest.fixture(scope="module")
def folders(make_model: Callable[..., Path]) -> dict[str, str]:
    models = {"a": make_model("a"), "b": make_model("b", seed=1), "r": make_model("reward", seed=5, reward=True)}
    return {name: str(folder) for name, folder in models.items()}


@pytest.mark.slow
def test_several_models_in_one_process_equal_each_in_its_own(
    clinic: Path, folders: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["--data", str(clinic), "--reward-model", folders["r"], "--reference", folders["a"]]
    models = [option for name, folder in folders.items() for option in ("--model", f"{name}={folder}")]
    main([*models, *common, "--json", str(tmp_path / "deep" / "all.json")])
    assert "pairwise" in capfd.readouterr().out
    together = json.loads((tmp_path / "deep" / "all.json").read_text())
    assert set(together) == {"models", "settings", "seconds", "recalled"}
    assert set(together["models"]) == {"a", "b", "r"}
    assert tuple(together["models"]["r"]["tasks"]) == ("pairwise",)
    assert tuple(together["models"]["a"]["tasks"]) == LANGUAGE
    assert together["models"]["a"]["tasks"]["kl"]["per_sequence"] == 0.0
    assert together["models"]["b"]["tasks"]["kl"]["per_sequence"] > 1.0
    assert together["settings"]["limits"]["reward"] == TASKS["reward"].limit
    assert together["settings"]["reference"] == folders["a"]

    main(["--model", folders["b"], *common, "--json", str(tmp_path / "b.json")])
    alone = json.loads((tmp_path / "b.json").read_text())
    assert set(alone) == {"model", "sha256", "tasks", "settings", "seconds", "recalled"}
    assert _without_seconds(alone["tasks"]) == _without_seconds(together["models"]["b"]["tasks"])
    for name in LANGUAGE:
        assert alone["tasks"][name]["n"] == (24 if name in ("reward", "kl") else 12)


@pytest.mark.slow
def test_a_task_that_fails_names_itself_and_writes_nothing(
    clinic: Path, folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("evals.tasks.ner.read_entities", fail)
    options = ["--model", f"first={folders['a']}", "--data", str(clinic), "--tasks", "ner"]
    with pytest.raises(ZeroDivisionError) as caught:
        main([*options, "--json", str(tmp_path / "a.json")])
    assert caught.value.__notes__ == ["(first, task ner)"]
    assert not (tmp_path / "a.json").exists()


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_gives_the_same_numbers(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = tmp_path / "exam.csv"
    rows = [f"第{n}号病人用什么药？,布洛芬,内科,头痛发热,休息,{'ABCD'[n % 4]}" for n in range(100)]
    exam.write_text("Question,A,B,C,D,Answer\n" + "\n".join(rows), encoding="utf-8")
    options = ["--model", folders["a"], "--file", f"exam={exam}", "--tasks", "exam", "--shots", "0"]
    results = tmp_path / "results.json"
    whole, asked = Engine.option_logprobs, list[int]()

    def killed(engine: Engine, prompts: Any, choices: Any, progress: Any = False) -> list[list[float]]:
        if asked:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return whole(engine, prompts, choices, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "option_logprobs", killed)
        with pytest.raises(SystemExit) as ended:
            main([*options, "--json", str(results)])
    assert ended.value.code == 130
    assert asked == [256]  # of 400 rotations
    assert not results.exists()
    main([*options, "--json", str(results)])
    resumed = json.loads(results.read_text())
    main([*options, "--json", str(results)])
    fresh = json.loads(results.read_text())
    assert (resumed["recalled"], fresh["recalled"]) == (256, 0)
    assert _without_seconds(resumed["tasks"]) == _without_seconds(fresh["tasks"])
    assert len(set(fresh["tasks"]["exam"]["likelihood"]["0_shot"]["letters"].values())) > 1


def _without_seconds(tasks: dict[str, Any]) -> dict[str, Any]:
    return {name: {key: value for key, value in task.items() if key != "seconds"} for name, task in tasks.items()}


def test_an_undefined_metric_is_refused_by_name() -> None:
    _check_finite({"a": {"b": 1.0, "n": 3}}, "choice")
    with pytest.raises(ValueError, match="choice.a.b is nan"):
        _check_finite({"a": {"b": math.nan, "n": 3}}, "choice")
