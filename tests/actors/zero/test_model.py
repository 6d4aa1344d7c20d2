from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import on_ranks
from torch import Tensor

from actors.config import ArchitectureConfig, OptimizerConfig, ZeroConfig
from actors.modeling.models import new_causal_lm
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.zero.diverged import NotFiniteError
from actors.zero.model import ZeroModel, learning_rate
from storage.durable import sha256

SHAPE = ArchitectureConfig(hidden_size=16, intermediate_size=24, layers=3, heads=2, kv_heads=2, context=32)


def module(seed: int = 0, logits: int | None = None) -> PackedLM:
    return PackedLM(new_causal_lm(SHAPE, vocab_size=40, bos=1, eos=2, pad=3, seed=seed), logits)


def batches(count: int) -> list[PackedBatch]:
    generator = torch.Generator().manual_seed(7)
    draw = [torch.randint(4, 40, (length,), generator=generator) for length in (9, 5, 12, 6)]
    return [PackedBatch.of(draw[index::count]) for index in range(count)]


def run(engine: Any, batch: PackedBatch) -> Tensor:
    return engine(batch)[0]


def mean_loss(
    parts: list[PackedBatch], ranks: int = 1
) -> Callable[[Tensor, PackedBatch], tuple[Tensor, dict[str, Tensor]]]:
    """The mean negative log-likelihood over all tokens of `parts`, in shares."""
    share = ranks / sum(len(part.predict) for part in parts)
    return lambda logprobs, batch: (-logprobs.sum() * share, {"tokens": torch.tensor(len(batch.predict))})


@pytest.mark.parametrize(("stage", "logits"), [(0, None), (1, None), (2, None), (3, None), (0, 5 * 40), (3, 5 * 40)])
def test_updates_are_those_of_plain_adamw(world: None, stage: int, logits: int | None) -> None:
    settings = OptimizerConfig(lr=1e-2, weight_decay=0.1, max_grad_norm=0.5, schedule="linear", warmup_steps=1)
    zero = ZeroModel(module(logits=logits), ZeroConfig(stage=stage), settings, total_steps=4)
    plain = module()
    matrices = [p for p in plain.parameters() if p.dim() >= 2]
    vectors = [p for p in plain.parameters() if p.dim() < 2]
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    parts = batches(2)
    for step in range(4):
        metrics = zero.update(parts, run, mean_loss(parts))
        for group in adamw.param_groups:
            group["lr"] = learning_rate(settings, step, 4)
        adamw.zero_grad()
        whole = torch.cat([run(plain, part) for part in parts])
        loss = -whole.mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        adamw.step()
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
        assert metrics["tokens"] == len(whole)
    expected = dict(plain.model.named_parameters())
    found = zero.full_state()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name].detach(), rtol=1e-4, atol=1e-5)


def test_cutting_the_batch_changes_nothing(world: None) -> None:
    metrics = []
    for count in (1, 2, 4):
        parts = batches(count)
        zero = ZeroModel(module(), ZeroConfig(), OptimizerConfig(), total_steps=2)
        metrics.append([zero.update(parts, run, mean_loss(parts)) for _ in range(2)])
    for other in metrics[1:]:
        for step in (0, 1):
            assert other[step] == pytest.approx(metrics[0][step], rel=1e-5)


def test_saved_and_loaded_goes_on_bit_for_bit(world: None, tmp_path: Path) -> None:
    parts = batches(1)
    zero = ZeroModel(module(), ZeroConfig(), OptimizerConfig(warmup_steps=3), total_steps=6)
    for _ in range(2):
        zero.update(parts, run, mean_loss(parts))
    zero.save(tmp_path)
    onward = [zero.update(parts, run, mean_loss(parts)) for _ in range(3)]  # while a thread writes
    digests = zero.saved(tmp_path)
    assert digests == {str(path.relative_to(tmp_path)): sha256(path) for path in tmp_path.rglob("*.pt")}
    assert len(digests) == 2
    other = ZeroModel(module(seed=9), ZeroConfig(), OptimizerConfig(warmup_steps=3), total_steps=6)
    other.load(tmp_path)
    assert other.steps_done == 2
    assert [other.update(parts, run, mean_loss(parts)) for _ in range(3)] == onward
    assert all(torch.equal(tensor, zero.full_state()[name]) for name, tensor in other.full_state().items())


@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_that_trains_on_nothing_changes_nothing_but_the_count(world: None, stage: int, dtype: Any) -> None:
    settings = OptimizerConfig(lr=1e-2, schedule="constant", weight_decay=0.1)
    parts = batches(2)
    states, reported = [], []
    for masked in (True, False):
        zero = ZeroModel(module(), ZeroConfig(stage=stage, dtype=dtype), settings, total_steps=4)
        zero.update(parts, run, mean_loss(parts))
        if masked:
            before = zero.full_state()
            nothing = zero.update(parts, run, lambda logprobs, _: (0.0 * logprobs.sum(), {}), has_trained_rows=False)
            assert nothing == {"loss": 0.0, "grad_norm": 0.0, "lr": 1e-2}
            assert all(torch.equal(tensor, before[name]) for name, tensor in zero.full_state().items())
            assert zero.steps_done == 2
        reported.append(zero.update(parts, run, mean_loss(parts)))
        states.append(zero.full_state())
    assert reported[0] == reported[1]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_weights_can_be_gathered_after_any_pass(world: None) -> None:
    """DeepSpeed leaves a large parameter in flight after the first forward pass that follows an accumulated update."""
    parts = batches(2)
    wide = SHAPE.model_copy(update={"hidden_size": 64, "intermediate_size": 2048})  # beyond what stays on every rank
    large = PackedLM(new_causal_lm(wide, vocab_size=2000, bos=1, eos=2, pad=3, seed=0))
    zero = ZeroModel(large, ZeroConfig(), OptimizerConfig(), total_steps=9)
    zero.forward(parts[0])
    zero.update(parts, run, mean_loss(parts))
    before = zero.full_state()
    zero.forward(parts[0])
    after = zero.full_state()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_loading_nothing_is_an_error(world: None, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no DeepSpeed checkpoint here"):
        ZeroModel(module(), ZeroConfig(), OptimizerConfig(), total_steps=1).load(tmp_path)


def test_a_loss_that_is_not_finite_leaves_the_weights_alone(world: None) -> None:
    zero = ZeroModel(module(), ZeroConfig(), OptimizerConfig(), total_steps=1)
    before = zero.full_state()
    parts = batches(4)

    def broken_in_the_third(logprobs: Tensor, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return logprobs.sum() * (float("nan") if batch is parts[2] else 1.0), {}

    with pytest.raises(NotFiniteError, match=r"the loss is nan at optimizer step 1") as raised:
        zero.update(parts, run, broken_in_the_third)
    assert raised.value.micro_batches == [[2]]
    assert all(torch.equal(tensor, before[name]) for name, tensor in zero.full_state().items())


@pytest.mark.parametrize(
    "settings",
    [
        *({"stage": stage} for stage in (0, 1, 2, 3)),
        *({"stage": stage, "dtype": "bfloat16"} for stage in (0, 3)),
        {"offload_optimizer": True},
    ],
)
def test_a_gradient_that_is_not_finite_is_that_of_every_micro_batch(world: None, settings: Any) -> None:
    zero = ZeroModel(module(), ZeroConfig(**settings), OptimizerConfig(), total_steps=1)
    with pytest.raises(NotFiniteError, match=r"the gradient is not finite at optimizer step 1") as raised:
        zero.update(batches(2), run, lambda logprobs, batch: ((logprobs - logprobs.detach()).sum().sqrt(), {}))
    assert raised.value.micro_batches == [[0, 1]]


def test_a_tied_weight_is_exported_once(world: None) -> None:
    zero = ZeroModel(module(), ZeroConfig(), OptimizerConfig(), total_steps=1)
    names = [name for block in zero.weight_blocks() for name in block]
    assert len(names) == len(set(names))
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_updates_are_those_of_plain_adamw_with_fp32_masters(world: None, stage: int) -> None:
    parts = batches(1)
    settings = OptimizerConfig(lr=1e-2, weight_decay=0.1, max_grad_norm=0.5, schedule="constant")
    zero = ZeroModel(module(), ZeroConfig(stage=stage, dtype="bfloat16"), settings, total_steps=8)
    plain = module().bfloat16()
    masters = [p.detach().float().requires_grad_() for p in plain.parameters()]
    decays = [{"params": [p for p in masters if (p.dim() >= 2) == matrix]} for matrix in (True, False)]
    adamw = torch.optim.AdamW([decays[0], decays[1] | {"weight_decay": 0.0}], 1e-2, (0.9, 0.95), weight_decay=0.1)
    losses = []
    for step in range(8):
        losses.append(zero.update(parts, run, mean_loss(parts))["loss"])
        loss = -run(plain, parts[0]).mean()
        loss.backward()
        for master, weight in zip(masters, plain.parameters(), strict=True):
            assert weight.grad is not None
            master.grad, weight.grad = weight.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, 0.5)
        adamw.step()
        with torch.no_grad():
            for master, weight in zip(masters, plain.parameters(), strict=True):
                weight.copy_(master)
        assert losses[-1] == pytest.approx(loss.item(), rel=1e-3), step  # bf16 carries 8 bits
    assert losses[-1] < 0.9 * losses[0]
    assert zero.full_state()["model.norm.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.775, 0.55, 0.325]),
        ("cosine", [0.5, 1.0, 1.0, 0.8682, 0.55, 0.2318]),
    ],
)
def test_learning_rate(schedule: Any, expected: list[float]) -> None:
    settings = OptimizerConfig(lr=1.0, warmup_steps=2, schedule=schedule, final_lr_ratio=0.1)
    rates = [learning_rate(settings, step, total_steps=6) for step in range(6)]
    assert rates == pytest.approx(expected, abs=1e-4)


def three_updates(rank: int, world: int) -> dict[str, Any]:
    """Figures of three updates, and the weights after them."""
    parts = batches(2)
    zero = ZeroModel(module(), ZeroConfig(), OptimizerConfig(lr=1e-2), total_steps=3)
    mine = parts if world == 1 else [parts[rank]]
    metrics = [zero.update(mine, run, mean_loss(parts, world)) for _ in range(3)]
    return {"figures": metrics, "state": zero.full_state()}


@pytest.mark.slow
def test_one_and_two_ranks_give_the_same_losses_and_weights(tmp_path: Path) -> None:
    one, two = (on_ranks(ranks, __file__, "three_updates", tmp_path) for ranks in (1, 2))
    for first, second in zip(one["figures"], two["figures"], strict=True):
        assert first["loss"] == second["loss"]
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-6)
    for name, tensor in one["state"].items():
        torch.testing.assert_close(tensor, two["state"][name], rtol=1e-5, atol=1e-6)


DECAY = OptimizerConfig(lr=1e-2, weight_decay=0.1)


def going_on(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Two updates after the checkpoint that one rank left of each stage, and the weights after them."""
    found: dict[str, Any] = {}
    for stage in (0, 1, 2, 3):
        zero = ZeroModel(module(seed=9), ZeroConfig(stage=stage), DECAY, total_steps=4)
        zero.load(Path(folder) / str(stage), ranks=1)
        parts = batches(2)
        metrics = [zero.update([parts[rank]], run, mean_loss(parts, world)) for _ in range(2)]
        found[str(stage)] = (zero.steps_done, metrics, zero.full_state())
    return found


@pytest.mark.slow
def test_what_one_rank_saved_two_ranks_go_on_from(world: None, tmp_path: Path) -> None:
    expected = {}
    for stage in (0, 1, 2, 3):
        parts = batches(2)
        zero = ZeroModel(module(), ZeroConfig(stage=stage), DECAY, total_steps=4)
        for _ in range(2):
            zero.update(parts, run, mean_loss(parts))
        (tmp_path / str(stage)).mkdir()
        zero.save(tmp_path / str(stage))
        zero.saved(tmp_path / str(stage))
        expected[str(stage)] = [zero.update(parts, run, mean_loss(parts)) for _ in range(2)], zero.full_state()
    before = sorted(tmp_path.rglob("*"))
    for stage, (steps, metrics, state) in on_ranks(2, __file__, "going_on", tmp_path, tmp_path).items():
        alone, weights = expected[stage]
        assert steps == 4
        for ours, theirs in zip(metrics, alone, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6), stage
        for name, tensor in weights.items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-5, atol=1e-6)
    assert [path for path in sorted(tmp_path.rglob("*")) if path.suffix != ".pt" or "zero" in path.parts] == before
