"""Packed attention against attention written out, sequence by sequence, in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from actors.modeling.attention import Scores, packed_attention
from actors.modeling.attention import _explicit as explicit
from actors.modeling.packing import Packing

LENGTHS = (9, 1, 5, 5, 2)
SINKS = torch.tensor([-1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
CASES: dict[str, dict[str, Any]] = {
    "causal": {},
    "window 3": {"sliding_window": 3},
    "window 1": {"sliding_window": 1},
    "window 9, as long as the longest": {"sliding_window": 9},
    "soft cap": {"softcap": 2.0},
    "soft cap and window": {"softcap": 2.0, "sliding_window": 4},
    "sinks": {"s_aux": SINKS},
    "sinks and window": {"s_aux": SINKS, "sliding_window": 2},
    "own scale": {"scaling": 0.05},
}


def heads(count: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, count, sum(LENGTHS), size, dtype=torch.float64, generator=generator).requires_grad_()


def written_out(query: Tensor, key: Tensor, value: Tensor, arguments: dict[str, Any]) -> Tensor:
    """(H, L, D) each to (L, H, D): a loop over queries."""
    group = len(query) // len(key)
    rows = []
    for head in range(len(query)):
        k, v = key[head // group], value[head // group]
        outputs = []
        for position in range(query.shape[1]):
            first = max(0, position + 1 - arguments.get("sliding_window", position + 1))
            scores = k[first : position + 1] @ query[head, position] * arguments.get("scaling", query.shape[-1] ** -0.5)
            if "softcap" in arguments:
                scores = arguments["softcap"] * torch.tanh(scores / arguments["softcap"])
            weights = scores.exp()
            total = weights.sum() + (arguments["s_aux"][head].exp() if "s_aux" in arguments else 0.0)
            outputs.append((weights / total) @ v[first : position + 1])
        rows.append(torch.stack(outputs))
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_each_sequence_alone(case: str, kv_heads: int) -> None:
    arguments = CASES[case]
    query, key, value = heads(4, 8, 0), heads(kv_heads, 8, 1), heads(kv_heads, 6, 2)
    packing = Packing(LENGTHS, torch.device("cpu"))
    output, _ = packed_attention(torch.nn.Module(), query, key, value, None, packing=packing, **arguments)
    slope = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ours = torch.autograd.grad(output, (query, key, value), slope)
    parts = [tensor[0].split(LENGTHS, dim=1) for tensor in (query, key, value)]
    wanted = torch.cat([written_out(q, k, v, arguments) for q, k, v in zip(*parts, strict=True)])[None]
    theirs = torch.autograd.grad(wanted, (query, key, value), slope)
    torch.testing.assert_close(output, wanted, rtol=0, atol=1e-12)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_pieces_of_the_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = (heads(4, 8, seed) for seed in range(3))
    scores = Scores(0.3, window=7, softcap=3.0, sinks=SINKS)
    whole = explicit(query, key, value, scores)
    monkeypatch.setattr("actors.modeling.attention.SCORE_ELEMENTS", 4 * sum(LENGTHS) * 3)
    torch.testing.assert_close(explicit(query, key, value, scores), whole, rtol=0, atol=1e-12)


def test_sinks_have_gradients() -> None:
    query, key, value = (heads(4, 8, seed) for seed in range(3))
    sinks = SINKS.clone().requires_grad_()
    packing = Packing(LENGTHS, torch.device("cpu"))
    output, _ = packed_attention(torch.nn.Module(), query, key, value, None, packing=packing, s_aux=sinks)
    (gradient,) = torch.autograd.grad(output.square().sum(), sinks)
    parts = [tensor[0].split(LENGTHS, dim=1) for tensor in (query, key, value)]
    wanted = torch.cat([written_out(q, k, v, {"s_aux": sinks}) for q, k, v in zip(*parts, strict=True)])
    (expected,) = torch.autograd.grad(wanted.square().sum(), sinks)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position_bias": torch.zeros(1)}, "does not know the argument 'position_bias' of Module"),
        ({"is_causal": False}, "looks ahead"),
    ],
)
def test_what_is_not_known_is_refused(arguments: dict[str, Any], message: str) -> None:
    query, key, value = (heads(2, 4, seed) for seed in range(3))
    packing = Packing(LENGTHS, torch.device("cpu"))
    with pytest.raises(ValueError, match=message):
        packed_attention(torch.nn.Module(), query, key, value, None, packing=packing, **arguments)


def test_what_means_nothing_to_attention_is_not() -> None:
    query, key, value = (heads(2, 4, seed) for seed in range(3))
    packing = Packing(LENGTHS, torch.device("cpu"))
    plain = packed_attention(torch.nn.Module(), query, key, value, None, packing=packing)[0]
    given = packed_attention(
        torch.nn.Module(), query, key, value, None, packing=packing, use_cache=False, position_bias=None
    )[0]
    assert torch.equal(plain, given)


def test_where_sequences_begin_and_end() -> None:
    packing = Packing((2, 2, 1), torch.device("cpu"))
    assert packing.bounds.tolist() == [0, 2, 4, 5]
    assert packing.owners.tolist() == [0, 0, 1, 1, 2]
    assert packing.positions.tolist() == [0, 1, 0, 1, 0]
    assert packing.runs == [(2, 2), (1, 1)]
    assert packing.longest == 2
