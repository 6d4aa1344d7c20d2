from __future__ import annotations

import copy
from typing import Any

import pytest

from configs.errors import ConfigError
from evals.report.table import build_table, check_table, to_markdown

SECONDS = {"pretrain": 200.0, "sft": 150.4, "reward": 80.0, "ppo": 210.0, "evals": 60.0}


def results(level: float) -> dict[str, Any]:
    return {
        "model": "somewhere",
        "tasks": {
            "perplexity": {"perplexity": 10 * level, "n": 5},
            "choice": {"accuracy": level / 10, "accuracy_sum": 0.0, "n": 5},
            "ner": {"f1": level / 20, "n": 5},
            "open": {"rouge_l": level / 30, "n": 5},
            "reward": {"mean": -level, "std": level / 2, "n": 5},
            "kl": {"per_sequence": level / 4, "per_token": 0.0, "n": 5},
        },
    }


@pytest.fixture
def models() -> dict[str, Any]:
    stages = {stage: results(level) for level, stage in enumerate(("random", "pretrain", "sft", "ppo"), start=1)}
    return {**stages, "reward": {"tasks": {"pairwise": {"accuracy": 0.9, "length_baseline": 0.55}}}}


def test_has_the_keys_and_values_that_readers_rely_on(models: dict[str, Any]) -> None:
    table = build_table(models, SECONDS, 4 * 2**30)
    assert [row["stage"] for row in table["rows"]] == ["random", "pretrain", "sft", "ppo"]
    assert table["rows"][1] == {
        "stage": "pretrain",
        "perplexity": 20,
        "choice_accuracy": 0.2,
        "ner_f1": 0.1,
        "rouge_l": 2 / 30,
        "reward_mean": -2,
        "reward_std": 1.0,
        "kl_to_sft": 0.5,
    }
    assert table["reward_model"] == {"pairwise_accuracy": 0.9, "length_baseline": 0.55}
    assert table["seconds"] == SECONDS
    assert table["peak_memory_bytes"] == 4294967296
    assert set(table) == {"rows", "reward_model", "seconds", "peak_memory_bytes"}


def test_results_that_are_missing_are_named(models: dict[str, Any]) -> None:
    del models["sft"]["tasks"]["ner"]["f1"]
    with pytest.raises(ConfigError, match=r"the results of 'sft' have no ner.f1"):
        build_table(models, SECONDS, 1)
    del models["reward"]
    models["sft"] = results(3)
    with pytest.raises(ConfigError, match="no results of a model named 'reward'"):
        build_table(models, SECONDS, 1)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("rows", 2, "ner_f1"), None, "table.rows.sft: ner_f1 is missing"),
        (("rows", 2, "ner_f1"), float("nan"), "table.rows.sft: ner_f1 is nan"),
        (("rows", 0, "perplexity"), "12", "perplexity is '12'"),
        (("rows", 3, "stage"), "rlhf", "the stages are"),
        (("rows", 3, "bleu"), 1.0, "bleu is not an allowed key"),
        (("reward_model", "length_baseline"), None, "table.reward_model: length_baseline is missing"),
        (("seconds", "reward"), None, "table.seconds: reward is missing"),
        (("seconds", "ppo"), True, "ppo is True"),
        (("peak_memory_bytes",), None, "table: peak_memory_bytes is missing"),
    ],
)
def test_a_table_of_another_form_is_refused(
    models: dict[str, Any], path: tuple[Any, ...], value: Any, said: str
) -> None:
    table = copy.deepcopy(build_table(models, SECONDS, 1))
    check_table(table)
    *outer, last = path
    holder: Any = table
    for key in outer:
        holder = holder[key]
    if value is None:
        del holder[last]
    else:
        holder[last] = value
    with pytest.raises(ConfigError, match=said):
        check_table(table)


def test_markdown_shows_every_number_in_aligned_columns(models: dict[str, Any]) -> None:
    lines = to_markdown(build_table(models, SECONDS, 3 * 2**29)).splitlines()
    assert lines[0] == "| stage          | perplexity | choice accuracy | NER F1 | ROUGE-L |       reward | KL to SFT |"
    assert lines[4] == "| SFT            |      30.00 |           0.300 |  0.150 |   0.100 | -3.00 ± 1.50 |      0.75 |"
    assert len({len(line) for line in lines[:6]}) == 1
    assert lines[7] == "Reward model: 0.900 accuracy on held-out pairs; by length alone: 0.550."
    assert lines[8].endswith("evals 60 s; 700 s in total. Peak memory of all processes: 1.5 GiB.")
