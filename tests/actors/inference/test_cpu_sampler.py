"""Tokens drawn in two heats come as often as their probabilities say; filters and log-probabilities are vLLM's."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from actors.inference.cpu_sampler import draw, race
from actors.inference.vllm_settings import CPU_ENVIRONMENT, ENVIRONMENT


def seeded(rows: int, first: int = 0) -> dict[int, torch.Generator]:
    return {row: torch.Generator().manual_seed(first + row) for row in range(rows)}


def fits(drawn: Tensor, probabilities: Tensor) -> bool:
    """Whether columns were drawn about as often as their probabilities say, and the impossible ones never."""
    counts = torch.bincount(drawn, minlength=len(probabilities))
    possible = probabilities > 0
    expected = probabilities.double()[possible] / probabilities.double().sum() * len(drawn)
    never = not counts[~possible].any()
    return never and (possible.sum() == 1 or chisquare(counts[possible].tolist(), expected.tolist()).pvalue > 1e-3)


@pytest.mark.parametrize("columns", [1, 2, 10, 16, 31, 50])
@pytest.mark.parametrize("own_seeds", [True, False])
def test_columns_are_drawn_as_often_as_their_probabilities_say(columns: int, own_seeds: bool) -> None:
    torch.manual_seed(0)
    rows = 20_000
    probabilities = torch.rand(columns) + 0.05
    probabilities[1::3] = 0
    drawn = race(probabilities.expand(rows, -1), seeded(rows) if own_seeds else {})
    assert fits(drawn, probabilities)
    assert not fits(drawn, probabilities.flip(0)) or columns == 1


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="an engine on a GPU draws as vLLM does")
def test_filters_and_logprobs_are_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ENVIRONMENT, **CPU_ENVIRONMENT}.items():
        monkeypatch.setenv(name, value)  # which vLLM reads when it is imported
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    rows, columns = 20_000, 50
    logits = torch.randn(columns, generator=torch.Generator().manual_seed(0)).mul(2).repeat(rows, 1)
    k, p = torch.full((rows,), 20), torch.full((rows,), 0.9)
    ours, our_logprobs = draw(logits.clone(), seeded(rows), k, p)
    theirs, their_logprobs = TopKTopPSampler("processed_logprobs").forward_cpu(logits.clone(), seeded(rows), k, p)
    assert their_logprobs is not None
    assert torch.equal(our_logprobs, their_logprobs)
    probabilities = our_logprobs[0].exp()
    assert 1 < (probabilities > 0).sum() <= 20
    assert fits(ours, probabilities)
    assert fits(theirs, probabilities)


def test_a_row_is_drawn_by_its_own_generator_wherever_it_stands() -> None:
    probabilities = torch.randn(40, 300, generator=torch.Generator().manual_seed(0)).softmax(-1)
    together = race(probabilities, seeded(40))
    for row in (0, 7, 39):
        assert race(probabilities[row : row + 1], seeded(1, row)) == together[row]
    generators = seeded(40)
    draws = [race(probabilities, generators) for _ in range(3)]
    assert not torch.equal(draws[0], draws[1])
    generators = seeded(40)
    generators.pop(5)  # a row without a seed changes nothing for the others
    others = [row for row in range(40) if row != 5]
    for again in draws:
        assert torch.equal(race(probabilities, generators)[others], again[others])


def test_rounding_seldom_changes_what_is_drawn_unlike_a_search_in_cumulative_sums() -> None:
    rows, columns = 4_000, 4_096
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, columns, generator=random)
    before = logits.softmax(-1)
    after = (logits + 1e-3 * torch.randn(rows, columns, generator=random)).softmax(-1)
    point = torch.rand(rows, 1, generator=random, dtype=torch.float64)
    searched = [torch.searchsorted(each.cumsum(-1, dtype=torch.float64), point) for each in (before, after)]
    raced = [race(each, seeded(rows)) for each in (before, after)]
    assert (searched[0] != searched[1]).sum() > 100
    assert (raced[0] != raced[1]).sum() < 10
