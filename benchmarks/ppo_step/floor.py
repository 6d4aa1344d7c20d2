"""How many floating-point operations a step of the algorithm needs, whatever the software."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from actors.modeling.rows import lengths
from benchmarks.ppo_step.workload import ARCHITECTURE, VOCABULARY

LAYERS = ARCHITECTURE.layers * (
    4 * ARCHITECTURE.hidden_size**2 + 3 * ARCHITECTURE.hidden_size * ARCHITECTURE.intermediate_size
)
HEAD = ARCHITECTURE.hidden_size * VOCABULARY
ATTENTION = 4 * ARCHITECTURE.hidden_size * ARCHITECTURE.layers  # of a token with one token that it sees


def step_flops(table: pa.Table) -> float:
    """Of GRPO's step over the journalled rows: every answer generated once, every sequence forward and backward once.

    A multiplication and the addition after it are two operations. A prompt is read once for all its answers; the head is
    applied to answers only; a backward pass is twice the forward pass (Kaplan et al. 2020, section 2.1).
    """
    prompts, answers = lengths(table, "prompt"), lengths(table, "response")
    _, first = np.unique(table.column("group").to_numpy(), return_index=True)
    shared, whole = prompts[first], prompts + answers
    read = 2 * LAYERS * shared.sum() + ATTENTION * _seen(shared).sum()
    written = 2 * LAYERS * (answers - 1).sum() + ATTENTION * (_seen(whole - 1) - _seen(prompts)).sum()
    learned = 3 * (2 * LAYERS * whole.sum() + ATTENTION * _seen(whole).sum())
    return float(read + written + learned + (1 + 3) * 2 * HEAD * answers.sum())


def _seen(tokens: np.ndarray) -> np.ndarray:
    """How many pairs there are of a token and one at or before it."""
    return tokens * (tokens + 1) / 2
