"""Who computes what: rows of a table cut into ranks and micro-batches of balanced token counts.

A plan is plain data that the driver makes once a step and hands to every role, so that a forward pass and the learning
that follows it see the same micro-batches and therefore the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.modeling.openrlhf import get_seqlen_balanced_partitions

Plan = list[list[list[int]]]  # rank -> micro-batch -> rows


def balanced_plan(lengths: Sequence[int], ranks: int, max_tokens: int) -> Plan:
    """Rows of `lengths` tokens each, cut into equally many micro-batches a rank, none above `max_tokens` if it can be.

    ZeRO-3 gathers parameters in every forward pass, so all ranks need equally many micro-batches, each with a row in
    it. A single row longer than `max_tokens` stands alone. Raises ValueError when there are fewer rows than ranks.
    """
    rows = len(lengths)
    if rows < ranks:
        raise ValueError(f"{rows} rows cannot be shared by {ranks} ranks: every rank needs at least one")
    share = get_seqlen_balanced_partitions(list(lengths), ranks, False) if ranks > 1 else [list(range(rows))]
    count = max(_fewest(len(mine), sum(lengths[row] for row in mine), max_tokens) for mine in share)
    count = min(count, min(len(mine) for mine in share))
    while True:
        plan = [_cut(mine, lengths, count) for mine in share]
        heaviest = max(sum(lengths[row] for row in micro) for rank in plan for micro in rank)
        if heaviest <= max_tokens or count == min(len(mine) for mine in share):
            return plan
        count += 1


def _fewest(rows: int, tokens: int, max_tokens: int) -> int:
    return min(rows, -(-tokens // max_tokens))


def _cut(rows: list[int], lengths: Sequence[int], count: int) -> list[list[int]]:
    if count == 1:
        return [sorted(rows)]
    parts = get_seqlen_balanced_partitions([lengths[row] for row in rows], count, False)
    return [sorted(rows[index] for index in part) for part in parts]


def rows_of(plan_of_rank: list[list[int]]) -> list[int]:
    """The rows of one rank in the order in which its micro-batches hold them."""
    return [row for micro in plan_of_rank for row in micro]


def rows_at(plan: Plan, micro_batches: Sequence[Sequence[int]]) -> list[int]:
    """The rows of the micro-batches whose indices are given, rank by rank, in ascending order."""
    chosen = [plan[rank][index] for rank, indices in enumerate(micro_batches) for index in indices]
    return sorted(row for rows in chosen for row in rows)


def minibatch_plans(lengths: Sequence[int], minibatches: int, ranks: int, max_tokens: int) -> list[Plan]:
    """A plan for each of `minibatches` optimizer steps over equally many consecutive rows."""
    size = len(lengths) // minibatches
    plans = []
    for first in range(0, size * minibatches, size):
        plan = balanced_plan(lengths[first : first + size], ranks, max_tokens)
        plans.append([[[first + row for row in micro] for micro in rank] for rank in plan])
    return plans


def row_chunks(rows: int, minibatches: int, chunk_rows: int | None) -> list[list[int]]:
    """Neighboring rows that are scored together: a minibatch, cut evenly into chunks of `chunk_rows` or a few more.

    It depends on nothing but these numbers, so that scores are rounded alike whatever was finished first.
    """
    size = rows // minibatches
    pieces = max(1, size // chunk_rows) if chunk_rows else 1
    return [
        [first + row for row in piece]
        for first in range(0, size * minibatches, size)
        for piece in even_shares(size, pieces)
    ]


def frozen_plan(lengths: Sequence[int], ranks: int, max_tokens: int) -> Plan:
    """As `balanced_plan`, for ranks that need nothing of each other: where there are too few rows, some get none."""
    busy = min(ranks, len(lengths))
    return balanced_plan(lengths, busy, max_tokens) + [[] for _ in range(ranks - busy)]


def forward_rows(plans: list[Plan]) -> Plan:
    """The micro-batches of all optimizer steps one after another, for a forward pass over every row once."""
    return [[micro for plan in plans for micro in plan[rank]] for rank in range(len(plans[0]))]


def even_shares(rows: int, ranks: int) -> list[list[int]]:
    """Neighboring rows cut into equally many a rank, give or take one."""
    return [list(range(rows * rank // ranks, rows * (rank + 1) // ranks)) for rank in range(ranks)]
