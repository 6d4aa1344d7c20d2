"""The losses on packed rows equal openrlhf's on padded ones, and do not change with the cut of the batch."""

from __future__ import annotations

import pytest
import torch

from actors.learner import TrainBatch
from actors.openrlhf import PolicyLoss, ValueLoss
from actors.packed import PackedBatch
from trainers.losses import ClippedPolicyLoss, ClippedValueLoss

COUNTS = [3, 7, 1, 5]


def columns(seed: int = 0) -> dict[str, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    names = ("new", "logprobs", "advantages", "values", "returns")
    return {name: [torch.randn(n, generator=generator) for n in COUNTS] for name in names}


def batch(data: dict[str, list[torch.Tensor]], rows: list[int], total: int, world: int = 1) -> TrainBatch:
    flat = {name: torch.cat([parts[row] for row in rows]) for name, parts in data.items()}
    packed = PackedBatch.of([[1] * (COUNTS[row] + 1) for row in rows])
    return TrainBatch(packed, flat, total, world)


def padded(data: dict[str, list[torch.Tensor]], name: str) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(data[name], batch_first=True)


MASK = torch.nn.utils.rnn.pad_sequence([torch.ones(n) for n in COUNTS], batch_first=True)


def policy(data: dict[str, list[torch.Tensor]], rows: list[int], total: int, world: int = 1):
    one = batch(data, rows, total, world)
    return ClippedPolicyLoss(0.2)((one["new"], torch.ones_like(one["new"])), one)


def test_policy_loss_equals_openrlhf_on_padded_rows() -> None:
    data = columns()
    loss, figures = policy(data, [0, 1, 2, 3], sum(COUNTS))
    theirs, clip, kl, *_ = PolicyLoss(0.2, 0.2)(
        padded(data, "new"), padded(data, "logprobs"), padded(data, "advantages"), MASK
    )
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert figures["clip_fraction"].item() == pytest.approx(clip.item(), abs=1e-6)
    assert figures["kl"].item() == pytest.approx(kl.item(), abs=1e-6)


def test_value_loss_equals_openrlhf_on_padded_rows() -> None:
    data = columns()
    one = batch(data, [0, 1, 2, 3], sum(COUNTS))
    loss, _ = ClippedValueLoss(0.3)(one["new"], one)
    theirs = ValueLoss(0.3)(padded(data, "new"), padded(data, "values"), padded(data, "returns"), MASK)
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("cut", [[[0], [1], [2], [3]], [[2, 0], [3, 1]]])
def test_the_cut_into_micro_batches_does_not_matter(cut: list[list[int]]) -> None:
    data, total = columns(), sum(COUNTS)
    whole, figures = policy(data, [0, 1, 2, 3], total)
    parts = [policy(data, rows, total) for rows in cut]
    assert sum(loss.item() for loss, _ in parts) == pytest.approx(whole.item(), abs=1e-6)
    for name, figure in figures.items():
        assert sum(part[name].item() for _, part in parts) == pytest.approx(figure.item(), abs=1e-6), name


def test_two_ranks_average_to_the_whole() -> None:
    data, total = columns(), sum(COUNTS)
    whole, _ = policy(data, [0, 1, 2, 3], total)
    ranks = [policy(data, rows, total, world=2)[0] for rows in ([0, 3], [1, 2])]
    assert (ranks[0] + ranks[1]).item() / 2 == pytest.approx(whole.item(), abs=1e-6)


def test_by_hand() -> None:
    # One token each: ratio 1.5 clipped to 1.2 with advantage 2 -> 2.4; ratio 0.5 with advantage -1 -> -0.8 (clipped).
    log = torch.log(torch.tensor([1.5, 0.5]))
    one = TrainBatch(
        PackedBatch.of([[1, 1], [1, 1]]), {"logprobs": torch.zeros(2), "advantages": torch.tensor([2.0, -1.0])}, 2, 1
    )
    loss, figures = ClippedPolicyLoss(0.2)((log, torch.tensor([0.3, 0.5])), one)
    assert loss.item() == pytest.approx(-(2.4 - 0.8) / 2)
    assert figures["clip_fraction"].item() == 1.0
    assert figures["entropy"].item() == pytest.approx(0.4)
    assert figures["ratio_deviation"].item() == pytest.approx(0.5)
