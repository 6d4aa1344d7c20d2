from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from actors.config import ArchitectureConfig, LoraConfig, OptimizerConfig, ZeroConfig
from actors.modeling.models import new_causal_lm, save_pretrained
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.sizing.memory import lora_parameters
from actors.sizing.shape import shape_of
from actors.zero.lora import ADAPTER, add_lora, merged, without_lora
from actors.zero.model import ZeroModel, learning_rate
from configs.errors import ConfigError

SHAPE = ArchitectureConfig(hidden_size=16, intermediate_size=24, layers=3, heads=2, kv_heads=1, context=32)
LORA = LoraConfig(rank=4, alpha=8.0)


def module(lora: LoraConfig = LORA, seed: int = 0) -> PackedLM:
    lm = new_causal_lm(SHAPE, vocab_size=40, bos=1, eos=2, pad=3, seed=0)
    add_lora(lm, lora, seed)
    return PackedLM(lm)


def run(engine: Any, batch: PackedBatch) -> Tensor:
    return engine(batch)[0]


def loss(logprobs: Tensor, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
    return -logprobs.mean(), {}


BATCH = PackedBatch.of([range(4, 20), range(20, 39)])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_only_the_matrices_learn_and_the_export_is_pefts_own_merge(world: None, stage: int) -> None:
    settings = OptimizerConfig(lr=1e-2)
    zero = ZeroModel(module(), ZeroConfig(stage=stage), settings, total_steps=3)
    plain = module()
    learned = [parameter for parameter in plain.parameters() if parameter.requires_grad]
    adamw = torch.optim.AdamW(learned, betas=settings.betas, weight_decay=0.0)
    for step in range(3):
        zero.update([BATCH], run, loss)
        for group in adamw.param_groups:
            group["lr"] = learning_rate(settings, step, 3)
        adamw.zero_grad()
        loss(run(plain, BATCH), BATCH)[0].backward()
        torch.nn.utils.clip_grad_norm_(learned, settings.max_grad_norm)
        adamw.step()
    exported = zero.full_state()
    start = dict(new_causal_lm(SHAPE, vocab_size=40, bos=1, eos=2, pad=3, seed=0).named_parameters())
    assert exported.keys() == start.keys()
    moved = {name for name in start if not torch.equal(start[name], exported[name])}
    assert moved == {name for name in start if "_proj." in name}
    for name, layer in plain.model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            layer.merge(safe_merge=True)
            torch.testing.assert_close(exported[f"{name}.weight"], layer.base_layer.weight, rtol=1e-4, atol=1e-6)


def test_the_export_loads_without_peft_and_says_what_the_trained_model_says(world: None, tmp_path: Path) -> None:
    zero = ZeroModel(module(), ZeroConfig(), OptimizerConfig(lr=1e-2), total_steps=3)
    for _ in range(3):
        zero.update([BATCH], run, loss)
    ours = run(zero.forward, BATCH)
    save_pretrained(zero.model, zero.full_state(), tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="packed")
    assert not any("lora" in name for name, _ in plain.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(run(PackedLM(plain), BATCH), ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_without_its_matrices_it_is_the_model_it_started_from(world: None, stage: int, dtype: Any) -> None:
    lm = module()
    zero = ZeroModel(
        lm.to(torch.bfloat16) if dtype == "bfloat16" else lm,
        ZeroConfig(stage=stage, dtype=dtype),
        OptimizerConfig(lr=1e-2),
        total_steps=3,
    )
    at_first = run(zero.forward, BATCH)
    trained = [parameter.requires_grad for parameter in zero.model.parameters()]
    for _ in range(2):
        with without_lora(zero.model):
            assert torch.equal(run(zero.forward, BATCH), at_first)
        zero.update([BATCH], run, loss)
    assert not torch.equal(run(zero.forward, BATCH), at_first)
    with without_lora(zero.model):
        assert torch.equal(run(zero.forward, BATCH), at_first)
    assert [parameter.requires_grad for parameter in zero.model.parameters()] == trained


@pytest.mark.parametrize("stage", [0, 3])
def test_what_is_published_is_what_was_declared(world: None, stage: int) -> None:
    zero = ZeroModel(module(), ZeroConfig(stage=stage), OptimizerConfig(lr=1e-2), total_steps=3)
    zero.update([BATCH], run, loss)
    sent = {name: tensor for block in zero.checkpoint_blocks() for name, tensor in block.items()}
    declared = {name: (empty.shape, empty.dtype) for name, empty in zero.checkpoint_layout()}
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in sent.items()} == declared
    assert list(sent) == list(declared)


def test_it_starts_as_the_model_was_and_follows_the_seed() -> None:
    plain = PackedLM(new_causal_lm(SHAPE, vocab_size=40, bos=1, eos=2, pad=3, seed=0))
    with torch.no_grad():
        torch.testing.assert_close(run(module(), BATCH), run(plain, BATCH))
    name = f"model.layers.1.mlp.up_proj.lora_A.{ADAPTER}.weight"
    first, same, other = (module(seed=seed).model.get_parameter(name) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_merging_is_pefts_own_bit_for_bit() -> None:
    model = module().model
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(generator=generator)
    ours = merged(model, dict(model.named_parameters()))
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            layer.merge(safe_merge=True)
            assert torch.equal(ours[f"{name}.weight"], layer.base_layer.weight)


def test_its_parameters_are_counted_beforehand() -> None:
    lora = LoraConfig(rank=4, targets=("q_proj", "v_proj", "down_proj"))
    learned = sum(p.numel() for p in module(lora).parameters() if p.requires_grad)
    assert lora_parameters(shape_of(module().model.config.to_dict(), "it"), lora) == learned


def test_targets_are_those_asked_for_and_a_wrong_one_is_named() -> None:
    some = module(LoraConfig(targets=("q_proj",))).model
    assert {name.split(".")[4] for name, p in some.named_parameters() if p.requires_grad} == {"q_proj"}
    with pytest.raises(ConfigError, match=r"lora.targets: the model has no linear layer c_attn; it has .*q_proj"):
        module(LoraConfig(targets=("q_proj", "c_attn")))
