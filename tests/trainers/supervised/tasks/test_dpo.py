from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actors.modeling.openrlhf import DPOLoss
from configs.errors import ConfigError
from data.tables import PREFERENCE, write_table
from trainers.config.supervised import DpoConfig
from trainers.runs.folder import read_metrics
from trainers.supervised.driver import main
from trainers.supervised.pairs import ResponseBatch, dpo_loss
from trainers.supervised.reference_logprobs import FILE
from trainers.supervised.tasks.dpo import DpoStage

LOG2 = torch.tensor(2.0).log().item()


@pytest.fixture(scope="module")
def settings(data: Any, clinic: Path) -> dict[str, Any]:
    """A DPO section of 12 steps on 32 pairs of 41 to 69 tokens, at most three of them in a micro-batch."""
    return {
        "name": "t",
        "model": str(clinic / "model"),
        "data": {**data("preference"), "max_tokens": 64},
        "batch_size": 8,
        "epochs": 3,
        "micro_batch_tokens": 160,
        "eval_every": 4,
        "checkpoint_every": 4,
        "optimizer": {"lr": 2e-3, "warmup_steps": 4},
    }


@pytest.fixture(scope="module")
def stage(settings: dict[str, Any]) -> Callable[..., DpoStage]:
    return lambda **changed: DpoStage(DpoConfig.model_validate_json(json.dumps({**settings, **changed})))


@pytest.fixture(scope="module")
def trained(
    train: Any, stage: Callable[..., DpoStage], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[int, dict[str, float]], Path]:
    """What an uninterrupted run with the settings as they are reported, by step, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    return figures(train(stage(), folder)), folder


def figures(sent: Any) -> dict[int, dict[str, float]]:
    return {done: metrics for kind, done, metrics in sent if kind == "step"}


@torch.no_grad()
def response_logprobs(folder: Path, table: pa.Table) -> torch.Tensor:
    """Log-probabilities of chosen and rejected answers, (rows, 2), by Transformers, a sequence at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = torch.zeros(table.num_rows, 2)
    for index, row in enumerate(table.to_pylist()):
        for column, side in enumerate(("chosen", "rejected")):
            ids, answer = torch.tensor(row[side]), row[f"{side}_response_tokens"]
            logprobs = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])
            found[index, column] = logprobs[-answer:].sum()
    return found


@pytest.mark.parametrize(("beta", "label_smoothing"), [(0.1, 0.0), (0.5, 0.0), (0.1, 0.2)])
def test_the_loss_equals_openrlhfs_and_the_papers(beta: float, label_smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, reference = (torch.randn(7, 2, generator=generator) * 20 - 50 for _ in range(2))
    loss = dpo_loss(ours, reference, beta, label_smoothing).item()
    theirs, _, _ = DPOLoss(beta, label_smoothing)(ours[:, 0], ours[:, 1], reference[:, 0], reference[:, 1])
    assert loss == pytest.approx(7 * theirs.item(), rel=1e-6)
    log_ratios = (ours - reference).double().numpy()
    margins = beta * (log_ratios[:, 0] - log_ratios[:, 1])
    terms = (1 - label_smoothing) * np.log1p(np.exp(-margins)) + label_smoothing * np.log1p(np.exp(margins))
    assert loss == pytest.approx(terms.sum(), rel=1e-5)


def test_the_stages_loss_and_figures_on_packed_pairs_are_openrlhfs(stage: Callable[..., DpoStage]) -> None:
    generator = torch.Generator().manual_seed(0)
    prompts, answers = [3, 1, 5], [(2, 7), (4, 1), (3, 3)]
    sequences = [[1] * (n + length) for n, pair in zip(prompts, answers, strict=True) for length in pair]
    reference = torch.randn(3, 2, generator=generator)
    batch = ResponseBatch.of_pairs(sequences, [length for pair in answers for length in pair], reference)
    parts = [[torch.randn(length, generator=generator) for length in pair] for pair in answers]
    dpo = stage(beta=0.3, label_smoothing=0.1)
    outputs = dpo.run(lambda _: (torch.cat([part for pair in parts for part in pair]), torch.empty(0)), batch)
    padded = [torch.nn.utils.rnn.pad_sequence(side, batch_first=True).sum(1) for side in zip(*parts, strict=True)]
    loss, chosen, rejected = DPOLoss(0.3, 0.1)(*padded, reference[:, 0], reference[:, 1])
    assert dpo.loss(outputs, batch).item() == pytest.approx(3 * loss.item(), rel=1e-5)
    found = {name: figure.item() for name, figure in dpo.metrics(outputs, batch).items()}
    assert found == pytest.approx(
        {
            "accuracy": (chosen > rejected).sum().item(),
            "margin": (chosen - rejected).sum().item(),
            "chosen_reward": chosen.sum().item(),
            "rejected_reward": rejected.sum().item(),
        },
        rel=1e-5,
    )


def test_only_the_answer_and_its_end_mark_are_predicted(stage: Callable[..., DpoStage]) -> None:
    dpo = stage()
    batch = dpo.batch(dpo.examples().train, [0, 1])  # rude, then cut off
    texts = [dpo.tokenizer.decode(part) for part in batch.targets.split(batch.target_counts)]
    assert texts == ["建议多休息，按时服药。</s>", "别烦我，自己查。</s>", "建议多休息，按时服药。</s>", "建议多休"]


def test_a_cut_pair_keeps_its_answers(stage: Callable[..., DpoStage], data: Any) -> None:
    section = {**data("preference"), "max_tokens": 24, "too_long": "cut"}
    cut, whole = stage(data=section), stage()
    batches = [dpo.batch(dpo.examples().train, [0]) for dpo in (cut, whole)]
    assert max(batches[0].lengths) == 24 < min(batches[1].lengths)
    for kept, answer in zip(*(batch.targets.split(batch.target_counts) for batch in batches), strict=True):
        assert kept.tolist() == answer.tolist()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_before_the_first_update_the_loss_is_log_2_and_every_margin_0(
    train: Any, stage: Callable[..., DpoStage], tmp_path: Path, label_smoothing: float
) -> None:
    # The last step of the first pass is filled up with rows of the first step, which must not be taken again.
    dpo = stage(label_smoothing=label_smoothing, batch_size=12, epochs=1, eval_at_start=True)
    reported = figures(train(dpo, tmp_path))
    assert list(reported) == [0, 1, 2, 3]
    assert [reported[0][name] for name in ("heldout_loss", "heldout_margin")] == [pytest.approx(LOG2, rel=1e-7), 0.0]
    first = reported[1]
    assert first["loss"] == pytest.approx(LOG2, rel=1e-7)
    assert [first[name] for name in ("margin", "chosen_reward", "rejected_reward", "accuracy")] == [0.0] * 4


def test_the_reference_reads_the_very_micro_batches_that_the_first_pass_learns(
    train: Any, stage: Callable[..., DpoStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In bfloat16 a pair's log-probabilities depend on what is packed with it; in fp32 on CPUs this would not be seen.
    read: list[list[int]] = []
    make = DpoStage.batch

    def batch(self: DpoStage, table: pa.Table, rows: list[int]) -> ResponseBatch:
        if table.num_rows == 32:  # the training rows, of which four steps of eight are a pass
            read.append(rows)
        return make(self, table, rows)

    monkeypatch.setattr(DpoStage, "batch", batch)
    train(stage(epochs=1), tmp_path)
    half = len(read) // 2
    assert sorted(row for rows in read[:half] for row in rows) == list(range(32))
    assert read[:half] == read[half:]


def test_the_reference_reads_only_what_is_learned(train: Any, stage: Callable[..., DpoStage], tmp_path: Path) -> None:
    train(stage(max_steps=1), tmp_path)
    kept = pq.read_table(tmp_path / FILE)["ref_chosen"].to_numpy()
    assert np.isnan(kept[:32]).sum() == 32 - 8
    assert not np.isnan(kept[32:]).any()


def test_the_reference_is_the_starting_model_read_once(
    trained: Any, stage: Callable[..., DpoStage], clinic: Path
) -> None:
    dpo = stage()
    examples = dpo.examples()
    kept = pq.read_table(trained[1] / FILE)
    found = torch.tensor([kept[name].to_pylist() for name in dpo.start_columns]).T
    expected = torch.cat([response_logprobs(clinic / "model", table) for table in (examples.train, examples.heldout)])
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-4)


def pairs_of_two_answers(folder: Path, complaints: tuple[str, str]) -> dict[str, list[str]]:
    """Tables of pairs of the same two answers; the first is the better for the first complaint, else the second."""
    answers = ["多休息。", "按时服药。"]
    for split, numbers in (("train", range(64)), ("heldout", range(64, 96))):
        rows = []
        for number in numbers:
            better = number % 2
            prompt = [{"role": "user", "content": f"{number}号病人{complaints[better]}怎么办"}]
            rows.append({"prompt": prompt, "chosen": answers[better], "rejected": answers[1 - better], "flaw": "wrong"})
        write_table(pa.Table.from_pylist(rows, PREFERENCE), folder / f"{split}.parquet")
    return {split: [str(folder / f"{split}.parquet")] for split in ("train", "heldout")}


@pytest.mark.parametrize(("complaints", "least", "most"), [(("头痛", "发热"), 0.9, 1.0), (("头痛", "头痛"), 0.3, 0.7)])
def test_heldout_accuracy_rises_from_chance_if_the_question_tells_the_better_answer(
    train: Any, stage: Callable[..., DpoStage], tmp_path: Path, complaints: tuple[str, str], least: float, most: float
) -> None:
    section = {**pairs_of_two_answers(tmp_path, complaints), "max_tokens": 64}
    dpo = stage(data=section, max_steps=16, micro_batch_tokens=512, optimizer={"lr": 2e-4})
    reported = figures(train(dpo, tmp_path))
    assert reported[4]["heldout_accuracy"] == pytest.approx(0.5, abs=0.2)
    assert least <= reported[16]["heldout_accuracy"] <= most


def test_what_is_reported_is_true_of_the_exported_model(
    trained: Any, stage: Callable[..., DpoStage], clinic: Path
) -> None:
    dpo = stage()
    reported, folder = trained
    heldout = dpo.examples().heldout
    before, after = (response_logprobs(path, heldout) for path in (clinic / "model", folder / "model"))
    loss, chosen, rejected = DPOLoss(dpo.config.beta)(after[:, 0], after[:, 1], before[:, 0], before[:, 1])
    last = {name: value for name, value in reported[12].items() if name.startswith("heldout_")}
    assert last == pytest.approx(
        {
            "heldout_loss": loss.item(),
            "heldout_accuracy": (chosen > rejected).float().mean().item(),
            "heldout_margin": (chosen - rejected).mean().item(),
            "heldout_chosen_reward": chosen.mean().item(),
            "heldout_rejected_reward": rejected.mean().item(),
        },
        rel=1e-4,
        abs=1e-5,
    )


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    train: Any, trained: Any, stage: Callable[..., DpoStage], tmp_path: Path
) -> None:
    whole, folder = trained
    with pytest.raises(SystemExit):
        train(stage(), tmp_path / "broken", die_at=6)
    before = (tmp_path / "broken" / FILE).stat().st_mtime_ns
    resumed = train(stage(), tmp_path / "broken")
    assert resumed[0] == ("start", 4, {})
    names = ("loss", "accuracy", "margin", "chosen_reward", "rejected_reward")
    for done, line in figures(resumed).items():
        assert [line[name] for name in names] == [whole[done][name] for name in names]
    assert (tmp_path / "broken" / FILE).stat().st_mtime_ns == before
    first, second = (load_file(path / "model" / "model.safetensors") for path in (folder, tmp_path / "broken"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_rows_than_the_reference_has_read_are_refused(
    train: Any, stage: Callable[..., DpoStage], tmp_path: Path, data: Any
) -> None:
    train(stage(max_steps=1), tmp_path)
    swapped = {"train": data("preference")["heldout"], "heldout": data("preference")["train"], "max_tokens": 64}
    with pytest.raises(ConfigError, match=r"starting.parquet: was computed from other rows"):
        train(stage(data=swapped), tmp_path)


def test_cutting_a_batch_otherwise_changes_nothing(
    train: Any, trained: Any, stage: Callable[..., DpoStage], tmp_path: Path
) -> None:
    fine, coarse = trained[0], figures(train(stage(micro_batch_tokens=4096), tmp_path))
    for name in ("loss", "margin"):
        assert [line[name] for line in fine.values()] == pytest.approx(
            [line[name] for line in coarse.values()], rel=1e-4, abs=1e-5
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beta": 0}, "beta"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"micro_batch_tokens": 127}, "micro_batch_tokens 127 is less than twice data.max_tokens 128"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    stage: Callable[..., DpoStage], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stage(**changed)


@pytest.mark.long
def test_two_ranks_give_the_losses_and_weights_of_one(
    train: Any,
    stage: Callable[..., DpoStage],
    settings: dict[str, Any],
    runs: Path,
    tmp_path: Path,
    ray_cluster: None,
) -> None:
    recipe = tmp_path / "recipe.yaml"
    # The last step of the first pass is filled up with rows that another rank may have read before.
    recipe.write_text(json.dumps({"dpo": {**settings, "batch_size": 12}}))
    main(DpoStage, "dpo", ["--config", str(recipe), "--placement.ranks=2"])
    one = list(figures(train(stage(batch_size=12), tmp_path / "one")).values())
    two = list(read_metrics(runs / "t"))
    assert one[0]["margin"] == two[0]["margin"] == 0.0
    for name in ("loss", "margin", "chosen_reward"):
        assert [line[name] for line in one] == pytest.approx([line[name] for line in two], rel=1e-4, abs=1e-5)
    assert one[-1]["heldout_loss"] == pytest.approx(two[-1]["heldout_loss"], rel=1e-4)
    assert one[-1]["heldout_loss"] < math.log(2)
    first, second = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "one", runs / "t"))
    assert all(torch.allclose(first[name], second[name], rtol=1e-4, atol=1e-5) for name in first)
