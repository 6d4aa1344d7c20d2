"""Plans that split the rows of a table between ranks and micro-batches with balanced token counts.

The driver makes a plan from the rows' lengths alone, so that the forward pass and the update after it use the same
micro-batches and therefore compute the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.modeling.openrlhf import get_seqlen_balanced_partitions

Plan = list[list[list[int]]]  # rank -> micro-batch -> rows


def balanced_plan(lengths: Sequence[int], ranks: int, max_tokens: int) -> Plan:
    """Splits rows into the same number of micro-batches per rank, each of at most `max_tokens` tokens if possible.

    ZeRO-3 gathers parameters in every forward pass, so all ranks need the same number of micro-batches, none of them
    empty.

    Args:
        lengths: number of tokens of each row.
        ranks: number of ranks to split the rows between.
        max_tokens: limit of a micro-batch, in tokens; a longer row exceeds it.

    Raises:
        ValueError: there are fewer rows than ranks.
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
    """Returns the rows of one rank, in the order of its micro-batches."""
    return [row for micro in plan_of_rank for row in micro]


def rows_at(plan: Plan, micro_batches: Sequence[Sequence[int]]) -> list[int]:
    """Returns the rows of the given micro-batches, in ascending order.

    Args:
        plan: the plan that has the micro-batches.
        micro_batches: indices of the micro-batches, by rank.
    """
    chosen = [plan[rank][index] for rank, indices in enumerate(micro_batches) for index in indices]
    return sorted(row for rows in chosen for row in rows)


def minibatch_plans(lengths: Sequence[int], minibatches: int, ranks: int, max_tokens: int) -> list[Plan]:
    """Returns one plan for each of `minibatches` optimizer steps, over the same number of consecutive rows each.

    Raises:
        ValueError: see `_minibatch_rows` and `balanced_plan`.
    """
    plans = []
    for rows in _minibatch_rows(len(lengths), minibatches):
        plan = balanced_plan(lengths[rows.start : rows.stop], ranks, max_tokens)
        plans.append([[[rows[row] for row in micro] for micro in rank] for rank in plan])
    return plans


def row_chunks(rows: int, minibatches: int, chunk_rows: int | None) -> list[list[int]]:
    """Splits the rows of every minibatch into chunks that are scored together.

    Without `chunk_rows`, a chunk is a minibatch. Otherwise, a minibatch of M rows is split into
    max(1, M // chunk_rows) chunks whose sizes differ by at most one row. The chunks do not depend on the order in which
    responses finish, so neither does the rounding of the scores.

    Args:
        rows: number of rows.
        minibatches: number of minibatches.
        chunk_rows: minimum number of rows of a chunk, unless a minibatch has fewer; None for one chunk per minibatch.

    Returns:
        The row indices of each chunk; together all rows in order.

    Raises:
        ValueError: see `_minibatch_rows`.
    """
    return [
        [minibatch[row] for row in piece]
        for minibatch in _minibatch_rows(rows, minibatches)
        for piece in even_shares(len(minibatch), max(1, len(minibatch) // chunk_rows) if chunk_rows else 1)
    ]


def _minibatch_rows(rows: int, minibatches: int) -> list[range]:
    """Splits consecutive rows into minibatches of equal size.

    Raises:
        ValueError: the minibatches would be empty, or some rows would be in none of them. The stages' settings rule
            this out before a run starts.
    """
    if not rows or rows % minibatches:
        raise ValueError(f"{rows} rows cannot be divided into {minibatches} minibatches of equal size")
    size = rows // minibatches
    return [range(first, first + size) for first in range(0, rows, size)]


def frozen_plan(lengths: Sequence[int], ranks: int, max_tokens: int) -> Plan:
    """Returns a `balanced_plan` for ranks that work independently; if rows are fewer than ranks, some get none."""
    busy = min(ranks, len(lengths))
    return balanced_plan(lengths, busy, max_tokens) + [[] for _ in range(ranks - busy)]


def forward_rows(plans: list[Plan]) -> Plan:
    """Concatenates the micro-batches of all optimizer steps, for a forward pass over every row once."""
    return [[micro for plan in plans for micro in plan[rank]] for rank in range(len(plans[0]))]


def even_shares(rows: int, ranks: int) -> list[list[int]]:
    """Splits consecutive rows between ranks; the shares differ by at most one row."""
    return [list(range(rows * rank // ranks, rows * (rank + 1) // ranks)) for rank in range(ranks)]
