"""Evaluation during training: its figures are those of `evals.run`, and nothing else changes by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from finished import evaluated
from safetensors.torch import load_file

from configs.errors import ConfigError
from data.tables import OPEN, DataError, write_table
from evals.options import parse
from trainers.config.supervised import EvaluationConfig, RewardConfig, SftConfig
from trainers.runs.evaluation import Evaluator, _arguments, check_tasks
from trainers.supervised.tasks.sft import SftStage

Section = dict[str, Any]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of open questions."""
    import pyarrow as pa

    folder = tmp_path_factory.mktemp("questions")
    rows = [{"question": f"病人{n}头痛怎么办", "reference": "多休息，多休息。"} for n in range(6)]
    write_table(pa.Table.from_pylist(rows, OPEN), folder / "open.heldout.parquet")
    return folder


def config(questions: Path, **section: Any) -> EvaluationConfig:
    return EvaluationConfig(**{"tasks": ("open",), "data": str(questions), "every": 2, "limit": 4, **section})


@pytest.mark.parametrize(
    ("section", "dtype"),
    [({}, "float32"), ({"gpus": 1.0}, "bfloat16"), ({"gpus": 1.0, "dtype": "float32"}, "float32")],
)
def test_its_process_computes_in_the_precision_of_the_settings(questions: Path, section: Section, dtype: str) -> None:
    assert parse(_arguments(config(questions, **section), "model")).dtype == dtype


def test_when_the_weights_are_evaluated(questions: Path, tmp_path: Path) -> None:
    evaluator = Evaluator(config(questions), tmp_path, steps=5, timeout_s=1)
    assert [done for done in range(1, 6) if evaluator.due(done)] == [2, 4, 5]
    assert not Evaluator(None, tmp_path, steps=5, timeout_s=1).due(5)


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"tasks": ("opem",)}, r"evaluation\.tasks: there is no task 'opem'; choose from .*open"),
        ({"tasks": ("open", "open")}, r"'open' is given twice"),
        ({"tasks": ("kl",)}, r"kl needs a reward model or a second model; run it with evals\.run"),
        ({"tasks": ("pairwise",)}, r"pairwise needs a reward model"),
        ({"tasks": ("choice",)}, r"evaluation\.tasks: .*choice\.heldout\.parquet: no such file"),
        ({"tasks": ("exam",)}, r"exam needs a file"),
        ({"data": "nowhere"}, r"evaluation\.data: there is no folder"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_training(questions: Path, section: Section, reason: str) -> None:
    with pytest.raises((ConfigError, DataError), match=reason):
        check_tasks(config(questions, **section))


def test_a_reward_model_is_not_asked(questions: Path, data: Any) -> None:
    values = {"name": "t", "model": "m", "data": {**data("preference"), "max_tokens": 512}}
    values["evaluation"] = config(questions).model_dump()
    with pytest.raises(ValueError, match="evaluation is for language models"):
        RewardConfig.model_validate_json(json.dumps(values))


@pytest.fixture
def sft(data: Any, clinic: Path) -> Callable[..., SftStage]:
    """SFT of 5 steps."""

    def make(**section: Any) -> SftStage:
        values = {"name": "t", "model": str(clinic / "model"), "data": {**data("sft"), "max_tokens": 512}, **section}
        return SftStage(SftConfig.model_validate_json(json.dumps({**values, "max_steps": 5, "epochs": 2})))

    return make


@pytest.mark.long
@pytest.mark.slow
def test_the_figures_are_those_of_evals_and_no_weight_depends_on_them(
    train: Any, sft: Callable[..., SftStage], questions: Path, tmp_path: Path, ray_cluster: None
) -> None:
    without, asked = tmp_path / "without", tmp_path / "asked"
    train(sft(), without)
    sent = train(sft(evaluation=config(questions).model_dump()), asked)
    found = {done: metrics["eval/open_rouge_l"] for kind, done, metrics in sent if "eval/open_rouge_l" in metrics}
    assert list(found) == [2, 4, 5]
    weights = [load_file(run / "model" / "model.safetensors") for run in (without, asked)]
    assert all((tensor == weights[1][name]).all() for name, tensor in weights[0].items())
    assert list((asked / "evaluation").iterdir()) == []
    assert evaluated(asked / "model", "open", questions, "--limit=4")["rouge_l"] == found[5]


@pytest.fixture
def evaluator(questions: Path, tmp_path: Path, ray_cluster: None) -> Iterator[Evaluator]:
    evaluator = Evaluator(config(questions), tmp_path, steps=9, timeout_s=120)
    yield evaluator
    if evaluator._actor is not None:
        ray.kill(evaluator._actor)


@pytest.mark.slow
@pytest.mark.long
def test_a_process_that_died_is_replaced(
    evaluator: Evaluator, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    def ask(done: int) -> dict[str, float]:
        return evaluator._ask(make_model("a"), f"evaluation after step {done}")

    first = ask(2)
    ray.kill(evaluator._actor)
    assert ask(4) == first
    assert first.keys() == {"eval/open_rouge_l"}
    assert "evaluation after step 4: " in caplog.text
