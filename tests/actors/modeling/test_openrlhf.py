"""The contract with openrlhf: every name that we use does what we rely on, and nothing else is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from actors.modeling import openrlhf as door


def test_policy_loss_returns_five_values_loss_clip_kl_first() -> None:
    values = door.PolicyLoss(0.2, 0.2)(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2))
    assert len(values) == 5
    assert [value.item() for value in values[:3]] == [-1.0, 0.0, 0.0]
    assert values[3] is None
    assert values[4] is None


def test_losses_take_global_token_counts() -> None:
    ones = torch.ones(1, 2)
    loss, *_ = door.PolicyLoss(0.2, 0.2)(ones * 0, ones * 0, ones, ones, dp_size=2, batch_num_tokens=8)
    assert loss.item() == -2 / 8 * 2
    assert door.ValueLoss(0.5)(ones, ones, ones * 0, ones, dp_size=1, batch_num_tokens=8).item() == 0.5 * 2 / 8


def test_pairwise_loss_is_bradley_terry() -> None:
    loss = door.PairWiseLoss()(torch.tensor([2.0]), torch.tensor([1.0]))
    assert loss.item() == pytest.approx(-torch.nn.functional.logsigmoid(torch.tensor(1.0)).item())


def test_dpo_loss_is_a_mean_and_gives_the_rewards_of_both_answers() -> None:
    chosen, rejected, zeros = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 1.0]), torch.zeros(2)
    loss, chosen_rewards, rejected_rewards = door.DPOLoss(0.5, 0.25)(chosen, rejected, zeros, zeros)
    terms = [-torch.nn.functional.logsigmoid(torch.tensor(value)).item() for value in (1.0, -1.0)]
    assert loss.item() == pytest.approx(sum(terms) / 2)  # margins 1 and -1: turned round, they are each other
    assert door.DPOLoss(0.5, 0.25)(chosen[:1], rejected[:1], zeros[:1], zeros[:1])[0].item() == pytest.approx(
        0.75 * terms[0] + 0.25 * terms[1]
    )
    assert chosen_rewards.tolist() == [1.5, -0.5]
    assert rejected_rewards.tolist() == [0.5, 0.5]


def test_kl_estimators() -> None:
    p, q = torch.tensor([-1.0]), torch.tensor([-1.5])
    assert door.compute_approx_kl(p, q, kl_estimator="k1").item() == 0.5
    assert door.compute_approx_kl(p, q, kl_estimator="k2").item() == 0.125
    assert door.compute_approx_kl(p, q, kl_estimator="k3").item() == pytest.approx(torch.exp(q - p).item() - 1 + 0.5)


def test_balanced_partitions_cover_everything() -> None:
    parts = door.get_seqlen_balanced_partitions([9, 1, 5, 5], 2, False)
    assert sorted(index for part in parts for index in part) == [0, 1, 2, 3]
    assert sorted(sum([9, 1, 5, 5][index] for index in part) for part in parts) == [10, 10]


def test_neither_its_models_nor_peft_nor_flash_attn_nor_deepspeed_are_imported() -> None:
    code = "import sys; from actors.modeling import openrlhf; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    imported = set(done.stdout.split())
    assert {"openrlhf.models.loss", "openrlhf.utils.seqlen_balancing"} <= imported
    assert not imported & {
        "openrlhf.models",
        "openrlhf.utils",
        "openrlhf.models.actor",
        "peft",
        "flash_attn",
        "deepspeed",
    }
