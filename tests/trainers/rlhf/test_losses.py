"""The losses on packed rows equal openrlhf's on padded ones, and do not change with the cut of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from actors.modeling.openrlhf import PolicyLoss, ValueLoss
from actors.modeling.packed import PackedBatch
from actors.roles.learner import TrainBatch
from trainers.config.algorithm import AlgorithmConfig
from trainers.rlhf.losses import ClippedPolicyLoss, ClippedValueLoss

COUNTS = [3, 7, 1, 5]


def columns(seed: int = 0) -> dict[str, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    names = ("new", "logprobs", "rollout_logprobs", "ref_logprobs", "advantages", "values", "returns", "entropy")
    return {name: [torch.randn(n, generator=generator) for n in COUNTS] for name in names}


def batch(data: dict[str, list[torch.Tensor]], rows: list[int], total: int, world: int = 1) -> TrainBatch:
    flat = {name: torch.cat([parts[row] for row in rows]) for name, parts in data.items()}
    flat["weights"] = torch.full_like(flat["new"], 1.0 / total)
    packed = PackedBatch.of([[1] * (COUNTS[row] + 1) for row in rows])
    return TrainBatch(packed, flat, world)


def padded(data: dict[str, list[torch.Tensor]], name: str) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(data[name], batch_first=True)


MASK = torch.nn.utils.rnn.pad_sequence([torch.ones(n) for n in COUNTS], batch_first=True)


def policy(data: dict[str, list[torch.Tensor]], rows: list[int], total: int, world: int = 1, **settings: Any):
    one = batch(data, rows, total, world)
    loss = ClippedPolicyLoss(AlgorithmConfig(**settings), kl_coef=0.1)
    return loss((one["new"], one["entropy"]), one)


def test_policy_loss_equals_openrlhf_on_padded_rows() -> None:
    data = columns()
    loss, metrics = policy(data, [0, 1, 2, 3], sum(COUNTS))
    theirs, clip, kl, *_ = PolicyLoss(0.2, 0.2)(
        padded(data, "new"), padded(data, "logprobs"), padded(data, "advantages"), MASK
    )
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert metrics["clip_fraction"].item() == pytest.approx(clip.item(), abs=1e-6)
    assert metrics["kl"].item() == pytest.approx(kl.item(), abs=1e-6)


def test_value_loss_equals_openrlhf_on_padded_rows() -> None:
    data = columns()
    one = batch(data, [0, 1, 2, 3], sum(COUNTS))
    loss, _ = ClippedValueLoss(0.3)(one["new"], one)
    theirs = ValueLoss(0.3)(padded(data, "new"), padded(data, "values"), padded(data, "returns"), MASK)
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("cut", [[[0], [1], [2], [3]], [[2, 0], [3, 1]]])
def test_the_cut_into_micro_batches_does_not_matter(cut: list[list[int]]) -> None:
    data, total = columns(), sum(COUNTS)
    whole, metrics = policy(data, [0, 1, 2, 3], total)
    parts = [policy(data, rows, total) for rows in cut]
    assert sum(loss.item() for loss, _ in parts) == pytest.approx(whole.item(), abs=1e-6)
    for name, figure in metrics.items():
        assert sum(part[name].item() for _, part in parts) == pytest.approx(figure.item(), abs=1e-6), name


def test_two_ranks_average_to_the_whole() -> None:
    data, total = columns(), sum(COUNTS)
    whole, _ = policy(data, [0, 1, 2, 3], total)
    ranks = [policy(data, rows, total, world=2)[0] for rows in ([0, 3], [1, 2])]
    assert (ranks[0] + ranks[1]).item() / 2 == pytest.approx(whole.item(), abs=1e-6)


@pytest.mark.parametrize("settings", [{"clip_eps_high": 0.5}, {"dual_clip": 1.5}, {"clip_eps": 0.1, "dual_clip": 3.0}])
def test_clips_equal_openrlhfs(settings: dict[str, float]) -> None:
    data = columns()
    loss, metrics = policy(data, [0, 1, 2, 3], sum(COUNTS), **settings)
    low = settings.get("clip_eps", 0.2)
    theirs, clip, *_ = PolicyLoss(low, settings.get("clip_eps_high", low), settings.get("dual_clip"))(
        padded(data, "new"), padded(data, "logprobs"), padded(data, "advantages"), MASK
    )
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert metrics["clip_fraction"].item() == pytest.approx(clip.item(), abs=1e-6)


def test_truncated_importance_is_the_decoupled_objective_written_out() -> None:
    data = columns()
    loss, metrics = policy(data, [0, 1, 2, 3], sum(COUNTS), rollout_correction="truncated", rollout_correction_cap=1.5)
    flat = {name: torch.cat(parts) for name, parts in data.items()}
    weight = (flat["logprobs"] - flat["rollout_logprobs"]).exp().clamp(max=1.5)
    ratio, advantages = (flat["new"] - flat["logprobs"]).exp(), flat["advantages"]
    surrogate = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    assert loss.item() == pytest.approx(-(weight * surrogate).mean().item(), abs=1e-6)
    assert metrics["rollout_correction"].item() == pytest.approx(weight.mean().item(), abs=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_and_entropy_are_added_with_their_weights(estimator: str) -> None:
    data = columns()
    plain, _ = policy(data, [0, 1, 2, 3], sum(COUNTS))
    loss, metrics = policy(data, [0, 1, 2, 3], sum(COUNTS), kl_in="loss", kl_estimator=estimator, entropy_coef=0.3)
    log_ratio = torch.cat(data["new"]) - torch.cat(data["ref_logprobs"])
    kl = {"k1": log_ratio, "k2": log_ratio**2 / 2, "k3": (-log_ratio).exp() - 1 + log_ratio}[estimator]
    kl = kl.clamp(-10, 10).mean().item()  # as openrlhf bounds it
    entropy = torch.cat(data["entropy"]).mean().item()
    assert loss.item() == pytest.approx(plain.item() + 0.1 * kl - 0.3 * entropy, abs=1e-5)
    assert metrics["kl_loss"].item() == pytest.approx(kl, abs=1e-5)


def test_without_old_logprobs_the_policy_is_its_own_and_the_gradient_is_reinforces() -> None:
    data = {name: parts for name, parts in columns().items() if name != "logprobs"}
    one = batch(data, [0, 1, 2, 3], sum(COUNTS))
    new = one["new"].clone().requires_grad_()
    loss, metrics = ClippedPolicyLoss(AlgorithmConfig(), 0.0, skips_old_logprobs=True)((new, one["entropy"]), one)
    loss.backward()
    torch.testing.assert_close(new.grad, -one["advantages"] / sum(COUNTS))
    assert metrics["ratio_deviation"].item() == 0.0


def test_by_hand() -> None:
    # One token each: ratio 1.5 clipped to 1.2 with advantage 2 -> 2.4; ratio 0.5 with advantage -1 -> -0.8 (clipped).
    log = torch.log(torch.tensor([1.5, 0.5]))
    columns_by_hand = {
        "logprobs": torch.zeros(2),
        "advantages": torch.tensor([2.0, -1.0]),
        "weights": torch.tensor([0.5, 0.5]),
    }
    one = TrainBatch(PackedBatch.of([[1, 1], [1, 1]]), columns_by_hand, 1)
    loss, metrics = ClippedPolicyLoss(AlgorithmConfig(), 0.0)((log, torch.tensor([0.3, 0.5])), one)
    assert loss.item() == pytest.approx(-(2.4 - 0.8) / 2)
    assert metrics["clip_fraction"].item() == 1.0
    assert metrics["entropy"].item() == pytest.approx(0.4)
    assert metrics["ratio_deviation"].item() == pytest.approx(0.5)
