"""The training loop of one rank, in this process: results, stop requests, resumed runs, and the best weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from short_sft import SETTINGS
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.zero.diverged import DivergedError
from configs.errors import ConfigError
from data.tables import SFT, write_table
from trainers.config.supervised import SftConfig
from trainers.supervised.driver import total_steps
from trainers.supervised.tasks.sft import SftStage

Message = tuple[str, int, dict[str, Any]]
Trained = tuple[list[Message], Path]


@pytest.fixture(scope="module")
def stage(data: Any, clinic: Path) -> Callable[..., SftStage]:
    def make(**settings: Any) -> SftStage:
        values = {
            **SETTINGS,
            "model": str(clinic / "model"),
            "data": {**data("sft"), "max_tokens": 64},
            **settings,
        }
        return SftStage(SftConfig.model_validate_json(json.dumps(values)))

    return make


@pytest.fixture(scope="module")
def trained(train: Any, stage: Callable[..., SftStage], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What an uninterrupted run with the settings as they are sent, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    return train(stage(), folder), folder


def losses(sent: list[Message]) -> dict[int, float]:
    return {done: metrics["loss"] for kind, done, metrics in sent if kind == "step"}


def test_training_lowers_the_loss_and_exports_what_transformers_loads(trained: Trained) -> None:
    sent, folder = trained
    assert sent[0] == ("start", 0, {})
    assert list(losses(sent)) == list(range(1, 9))
    assert losses(sent)[8] < 0.8 * losses(sent)[1]
    assert [done for kind, done, metrics in sent if "heldout_loss" in metrics] == [3, 6, 8]
    assert sent[-1][2]["density"] == 1.0
    assert all(0.0 < metrics["mfu"] < 1.0 for kind, _, metrics in sent if kind == "step")
    assert 50e6 < sent[-1][2]["peak_memory_bytes"] < 50e9
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "病人1头痛怎么办"}], return_tensors="pt")
    assert torch.isfinite(model(**chat).logits).all()


def test_the_exported_model_has_the_reported_heldout_loss(trained: Trained, stage: Callable[..., SftStage]) -> None:
    sent, folder = trained
    reported = sent[-1][2]["heldout_loss"]
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    total, count = 0.0, 0
    for row in stage().examples().heldout.to_pylist():
        with torch.no_grad():
            logits = model(torch.tensor([row["tokens"]])).logits[0, :-1]
        wanted = torch.tensor(row["tokens"][1:])
        mask = torch.tensor(row["targets"][1:], dtype=torch.bool)
        total += torch.nn.functional.cross_entropy(logits[mask], wanted[mask], reduction="sum").item()
        count += int(mask.sum())
    assert reported == pytest.approx(total / count, rel=1e-5)


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    train: Any, trained: Trained, stage: Callable[..., SftStage], tmp_path: Path
) -> None:
    whole, folder = trained
    with pytest.raises(SystemExit):
        train(stage(), tmp_path / "broken", die_at=5)
    assert not (tmp_path / "broken" / "model").exists()
    resumed = train(stage(), tmp_path / "broken")
    assert resumed[0] == ("start", 4, {})
    assert losses(resumed) == {done: loss for done, loss in losses(whole).items() if done > 4}
    first, second = (load_file(path / "model" / "model.safetensors") for path in (folder, tmp_path / "broken"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_stop_request_saves_the_step_and_the_same_command_continues(
    train: Any, trained: Trained, stage: Callable[..., SftStage], tmp_path: Path
) -> None:
    whole, folder = trained
    first = train(stage(checkpoint_every=100), tmp_path, stop_at=5)
    assert first[-1] == ("stopped", 5, {})
    assert not (tmp_path / "model").exists()
    resumed = train(stage(checkpoint_every=100), tmp_path)
    assert resumed[0] == ("start", 5, {})
    assert losses(first) | losses(resumed) == losses(whole)
    mine, theirs = (load_file(path / "model" / "model.safetensors") for path in (tmp_path, folder))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_the_best_weights_are_kept_and_exported(
    train: Any, stage: Callable[..., SftStage], data: Any, tmp_path: Path
) -> None:
    rude = [{"role": "user", "content": "病人头痛怎么办"}, {"role": "assistant", "content": "别烦我，自己查！"}]
    table = pa.Table.from_pylist([{"messages": rude, "task": "qa"}], SFT)  # the better the rest is learned, the worse
    write_table(table, tmp_path / "rude.parquet")
    tables = {**data("sft"), "heldout": [str(tmp_path / "rude.parquet")], "max_tokens": 64}
    worse_in_the_end = {"data": tables, "eval_every": 1, "optimizer": {"lr": 1e-2, "schedule": "constant"}}
    sent = train(stage(export="both", **worse_in_the_end), tmp_path / "both")
    found = {done: metrics["heldout_loss"] for _, done, metrics in sent if "heldout_loss" in metrics}
    best = min(found, key=lambda step: found[step])
    assert best < 8
    assert [path.name for path in (tmp_path / "both" / "best").iterdir()] == [f"step-{best:08d}"]
    kept = tmp_path / "both" / "best" / f"step-{best:08d}"
    assert json.loads((kept / "evaluation.json").read_text())["metrics"]["heldout_loss"] == found[best]
    assert json.loads((tmp_path / "both" / "model" / "evaluation.json").read_text())["step"] == 8
    with pytest.raises(SystemExit):
        train(stage(export="best", **worse_in_the_end), tmp_path / "best", die_at=best + 1)
    train(stage(export="best", **worse_in_the_end), tmp_path / "best")
    first, second = (load_file(folder / "model.safetensors") for folder in (kept, tmp_path / "best" / "model"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    AutoTokenizer.from_pretrained(tmp_path / "best" / "model")


def test_lora_with_dropout_resumes_bit_for_bit(train: Any, stage: Callable[..., SftStage], tmp_path: Path) -> None:
    lora = {"rank": 4, "alpha": 8, "dropout": 0.3}
    whole = train(stage(lora=lora), tmp_path / "whole")
    assert losses(whole)[8] < losses(whole)[1]
    with pytest.raises(SystemExit):
        train(stage(lora=lora), tmp_path / "broken", die_at=5)
    resumed = train(stage(lora=lora), tmp_path / "broken")
    assert losses(resumed) == {done: loss for done, loss in losses(whole).items() if done > 4}
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any("lora" in name for name in first)


def test_sources_are_mixed_by_weight_and_resumed_bit_for_bit(
    train: Any, stage: Callable[..., SftStage], data: Any, tmp_path: Path
) -> None:
    tables = data("sft")
    mixed = {"train": [*tables["train"], *tables["heldout"]], "heldout": tables["heldout"], "max_tokens": 64}
    sft = stage(data={**mixed, "weights": [1, 3]})
    examples = sft.examples()
    assert examples.order.shares == (10, 30)
    assert examples.notes[-1].endswith("sft.heldout.parquet: 75.0% of the training samples, 3.75 passes per epoch")
    whole = train(sft, tmp_path / "whole")
    with pytest.raises(SystemExit):
        train(sft, tmp_path / "broken", die_at=5)
    assert losses(train(sft, tmp_path / "broken")) == {s: loss for s, loss in losses(whole).items() if s > 4}
    by_size = train(stage(data=mixed), tmp_path / "by_size")
    assert losses(by_size)[10] != losses(whole)[10]
    with pytest.raises(ValueError, match="weights has 3 numbers for 2 entries of train"):
        stage(data={**mixed, "weights": [1, 1, 1]})
    with pytest.raises(ValueError, match="each must be finite and above 0"):
        stage(data={**mixed, "weights": [1, 0]})


def test_cutting_a_batch_otherwise_changes_nothing(
    train: Any, trained: Trained, stage: Callable[..., SftStage], tmp_path: Path
) -> None:
    fine, coarse = losses(trained[0]), losses(train(stage(micro_batch_tokens=4096), tmp_path))
    assert fine == pytest.approx(coarse, rel=1e-5)


def test_a_diverging_loss_stops_the_training(train: Any, stage: Callable[..., SftStage], tmp_path: Path) -> None:
    sft = stage(optimizer={"lr": 1e30, "max_grad_norm": 1e30})
    with pytest.raises(
        DivergedError, match=r"sft: the (loss|gradient) is n\w+.* at optimizer step 2; its rows are"
    ) as raised:
        train(sft, tmp_path)
    learned = {tuple(tokens) for tokens in sft.examples().train["tokens"].to_pylist()}
    assert {tuple(tokens) for tokens in raised.value.rows["tokens"].to_pylist()} <= learned


def test_the_number_of_steps_follows_epochs_and_max_steps(stage: Callable[..., SftStage]) -> None:
    examples = stage().examples()  # 32 rows
    assert total_steps(stage(epochs=1.5).config, examples) == 12
    assert total_steps(stage(epochs=1.5, max_steps=5).config, examples) == 5
    with pytest.raises(ConfigError, match=r"epochs 0.1 over 32 training rows are less than one batch_size 8"):
        total_steps(stage(epochs=0.1, batch_size=8).config, examples)
    with pytest.raises(ConfigError, match=r"data.heldout has 8 rows, fewer than placement.ranks 16"):
        total_steps(stage(batch_size=16, placement={"ranks": 16}).config, examples)
