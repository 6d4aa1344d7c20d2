from __future__ import annotations

import pytest
import torch

import actors.modeling.logprobs
from actors.modeling.logprobs import token_logprobs


@pytest.fixture(autouse=True)
def several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows of the 50-word vocabulary a piece: the tests' 10 rows are cut into four pieces."""
    monkeypatch.setitem(actors.modeling.logprobs.PIECE_ELEMENTS, "cpu", 150)


def draw(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(10, 50, generator=generator)
    return logits.to(dtype).requires_grad_(), torch.randint(0, 50, (10,), generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_are_those_of_log_softmax(temperature: float) -> None:
    logits, targets = draw()
    logprobs, entropies = token_logprobs(logits, targets, temperature, entropy=True)
    distribution = torch.distributions.Categorical(logits=logits.detach() / temperature)
    torch.testing.assert_close(logprobs, distribution.log_prob(targets), rtol=0, atol=1e-5)
    torch.testing.assert_close(entropies, distribution.entropy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradients_are_those_of_autograd(temperature: float) -> None:
    weights = torch.linspace(-1, 2, 10)
    logits, targets = draw()
    (token_logprobs(logits, targets, temperature)[0] * weights).sum().backward()
    plain, _ = draw()
    ((plain / temperature).log_softmax(-1).gather(1, targets[:, None]).squeeze(1) * weights).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, plain.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradients_of_entropies_are_those_of_autograd(temperature: float) -> None:
    weights = torch.linspace(-1, 2, 10)
    logits, targets = draw()
    logprobs, entropies = token_logprobs(logits, targets, temperature, entropy=True)
    (entropies * weights + logprobs).sum().backward()
    plain, _ = draw()
    log = (plain / temperature).log_softmax(-1)
    entropy = -(log.exp() * log).sum(-1)
    (entropy * weights + log.gather(1, targets[:, None]).squeeze(1)).sum().backward()
    torch.testing.assert_close(logits.grad, plain.grad, rtol=1e-5, atol=1e-6)


def test_the_cut_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = draw()
    cut, _ = token_logprobs(logits, targets)
    monkeypatch.setitem(actors.modeling.logprobs.PIECE_ELEMENTS, "cpu", 10**6)
    assert torch.equal(cut, token_logprobs(logits, targets)[0])


def test_half_precision_logits_give_fp32_logprobs_and_gradients_of_their_own_type() -> None:
    logits, targets = draw(torch.bfloat16)
    logprobs, entropies = token_logprobs(logits, targets)
    assert logprobs.dtype == torch.float32
    assert entropies.numel() == 0
    expected = logits.detach().float().log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-5)
    logprobs.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16
    assert torch.isfinite(logits.grad).all()


def test_no_rows_give_no_logprobs() -> None:
    logprobs, _ = token_logprobs(torch.zeros(0, 50), torch.zeros(0, dtype=torch.int64))
    assert logprobs.shape == (0,)
