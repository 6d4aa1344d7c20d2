from __future__ import annotations

import torch

from actors.sizing.shape import Shape
from actors.sizing.throughput import matmul_flops, median_seconds, training_flops

SHAPE = Shape(hidden=8, layers=2, intermediate=16, heads=2, kv_heads=1, vocab=100)


def test_operations_worked_by_hand() -> None:
    elements = 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16)
    assert SHAPE.matrix_elements == elements
    matrices = 2 * elements * 5 + 2 * 8 * 100 * 4
    attention = 4 * 2 * 8 * (3 + 6)  # two tokens see 1 and 2, three see 1, 2 and 3
    assert training_flops(SHAPE, [2, 3], 4) == 3 * (matrices + attention)
    assert training_flops(SHAPE, [2, 3], 4, frozen=True) == 2 * matrices + 3 * attention


def test_operations_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.ones(1, 7, dtype=torch.int64)).logits.sum().backward()
    # Eager attention multiplies all pairs, also of a token and a later one.
    ours = training_flops(SHAPE, [7], 7) + 3 * 4 * 2 * 8 * (7 * 7 - 28)
    assert abs(counter.get_total_flops() / ours - 1) < 0.02


def test_a_rate_is_positive_and_repetitions_are_bounded() -> None:
    calls: list[int] = []
    assert median_seconds(lambda: calls.append(1)) >= 0
    assert len(calls) == 21
    assert 1e6 < matmul_flops(64, 32, 32, torch.float32, "cpu") < 1e15
