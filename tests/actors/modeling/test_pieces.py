"""Two ranks of ZeRO-3 that cut their logits into pieces, of a model that is read whole or into shards."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import on_ranks
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

import actors.modeling.packed_models
from actors.config import LoraConfig, OptimizerConfig, ZeroConfig
from actors.modeling.models import load_causal_lm
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.zero.loading import load_to_train
from actors.zero.lora import add_lora
from actors.zero.model import ZeroModel

VOCABULARY, HIDDEN = (
    1000,
    128,
)  # a matrix that DeepSpeed does not keep whole (stage3_param_persistence_threshold, 100,000)
LIMITS = {  # by the pieces of the first micro-batches of the two ranks
    "all at once": 10**9,
    "1 and 2": 20 * VOCABULARY,
    "5 and 7": 4 * VOCABULARY,
}


def batches(rank: int) -> list[PackedBatch]:
    """Two micro-batches: of 18 and 27 predicted tokens on rank 0 and 1, then of 15 and none."""
    if rank == 0:
        return [PackedBatch.of([range(20)], [[0] + [1] * 18 + [0]]), PackedBatch.of([range(5, 21)])]
    return [PackedBatch.of([range(3, 16), range(30, 46)]), PackedBatch.of([range(4, 14)], [[0] * 10])]


def loss(outputs: tuple[Tensor, Tensor], _: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
    logprobs, entropies = outputs
    return -(logprobs.sum() + 0.1 * entropies.sum()) / 60, {"entropy": entropies.sum()}


def trained(rank: int, _: int, model: str, lora: str, entropy: str) -> dict[str, dict[str, Any]]:
    """By limit of the logits and way of reading: figures of two updates, log-probabilities afterwards, and the weights."""
    found: dict[str, dict[str, Any]] = {}
    for (name, limit), way in itertools.product(LIMITS.items(), ("shards", "whole")):
        actors.modeling.packed_models.LOGITS["cpu"] = limit
        zero = ZeroConfig()
        if way == "shards":
            module = load_to_train(PackedLM, model, zero)
        else:
            module = PackedLM(load_causal_lm(model, torch.float32))
        if lora == "True":
            add_lora(module.model, LoraConfig(rank=4), seed=3)
        learner = ZeroModel(module, zero, OptimizerConfig(lr=1e-2), total_steps=2)

        def run(engine: Any, batch: PackedBatch) -> Any:
            return engine(batch, 0.7, entropy == "True")

        metrics = [learner.update(batches(rank), run, loss) for _ in range(2)]
        logprobs = [learner.forward(batch)[0] for batch in batches(rank)]
        mine = {"figures": metrics, "logprobs": torch.cat(logprobs), "weights": learner.full_state()}
        found.setdefault(name, {})[way] = mine
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("lora", "entropy"), [(False, True), (True, False)])
def test_ranks_with_unequal_numbers_of_pieces_train_as_with_all_logits(
    lora: bool, entropy: bool, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(
        "qwen2", vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, tie_word_embeddings=lora,
    )  # fmt: skip
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    found = on_ranks(2, __file__, "trained", tmp_path, tmp_path / "model", lora, entropy)
    expected = found["all at once"]["whole"]
    assert (expected["figures"][0]["entropy"] > 0) == entropy
    for ways in found.values():
        shards, whole = ways["shards"], ways["whole"]
        assert whole["figures"] == [pytest.approx(metrics, rel=1e-4) for metrics in expected["figures"]]
        torch.testing.assert_close(whole["logprobs"], expected["logprobs"], rtol=1e-3, atol=1e-3)
        assert shards["figures"] == whole["figures"]
        assert torch.equal(shards["logprobs"], whole["logprobs"])
        assert all(torch.equal(shards["weights"][name], tensor) for name, tensor in whole["weights"].items())
