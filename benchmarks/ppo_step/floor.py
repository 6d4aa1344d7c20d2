"""The floating-point operations that a step of the algorithm needs, independent of the software."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from actors.modeling.rows import lengths
from benchmarks.ppo_step.workload import ARCHITECTURE, VOCABULARY

LAYERS = ARCHITECTURE.layers * (
    4 * ARCHITECTURE.hidden_size**2 + 3 * ARCHITECTURE.hidden_size * ARCHITECTURE.intermediate_size
)
HEAD = ARCHITECTURE.hidden_size * VOCABULARY
ATTENTION = 4 * ARCHITECTURE.hidden_size * ARCHITECTURE.layers  # of one token attending to one token


def step_flops(table: pa.Table) -> float:
    """Returns the floating-point operations of a GRPO step over the journaled rows.

    The step generates every response once, and runs one forward and one backward pass over every sequence. A
    multiply-add counts as two operations. A prompt is prefilled once for all its responses; the head is applied only to
    response tokens; a backward pass costs twice as much as a forward pass (Kaplan et al. 2020, section 2.1).
    """
    prompts, answers = lengths(table, "prompt"), lengths(table, "response")
    _, first = np.unique(table.column("group").to_numpy(), return_index=True)
    shared, whole = prompts[first], prompts + answers
    read = 2 * LAYERS * shared.sum() + ATTENTION * _seen(shared).sum()
    written = 2 * LAYERS * (answers - 1).sum() + ATTENTION * (_seen(whole - 1) - _seen(prompts)).sum()
    learned = 3 * (2 * LAYERS * whole.sum() + ATTENTION * _seen(whole).sum())
    return float(read + written + learned + (1 + 3) * 2 * HEAD * answers.sum())


def _seen(tokens: np.ndarray) -> np.ndarray:
    """Returns the number of pairs of a token and a token at or before it, for sequence lengths `tokens`."""
    return tokens * (tokens + 1) / 2
