"""Scores of a step's answers by roles that never change: reference, reward model, judge. Asked for chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import ray

from actors.groups.batching import frozen_plan
from actors.groups.group import ColumnsInFlight, WorkerGroup
from actors.modeling.rows import lengths
from actors.rewards.sample import Sample
from actors.table import extended

Samples = Callable[[pa.Table], list[Sample]]
"""Answered rows in words."""


class Scoring:
    """What `groups` are computing for the chunks of one table. `ask` for every chunk once, in any order, then `join`."""

    def __init__(
        self, groups: Mapping[str, WorkerGroup[Any]], settings: Mapping[str, Any], samples: Samples, chunks: int
    ) -> None:
        """`groups` and their `settings` by role; the judge, if it is one of them, is told `samples`."""
        self._groups, self._settings, self._samples = groups, settings, samples
        self._asked: list[list[Callable[[], pa.Table]]] = [[] for _ in range(chunks)]

    def ask(self, number: int, chunk: pa.Table) -> None:
        """Has chunk `number` scored; returns at once."""
        shared = ray.put(chunk)
        sizes = lengths(chunk, "prompt", "response").tolist()
        self._asked[number] = [
            self._ask_judge(group, chunk) if role == "judge" else self._ask(role, group, shared, sizes)
            for role, group in self._groups.items()
        ]

    def join(self, table: pa.Table) -> pa.Table:
        """`table`, which is all chunks in order, with the new columns. Waits for all roles."""
        chunks = [[columns() for columns in asked] for asked in self._asked]
        for role, parts in zip(self._groups, zip(*chunks, strict=True), strict=True):
            table = extended(table, pa.concat_tables(parts).combine_chunks(), role)
        return table

    def _ask(
        self, role: str, group: WorkerGroup[Any], chunk: ray.ObjectRef, sizes: list[int]
    ) -> Callable[[], pa.Table]:
        plan = frozen_plan(sizes, group.ranks, self._settings[role].micro_batch_tokens)
        flying = ColumnsInFlight(group, "add_columns", chunk, plan)
        return lambda: flying.columns(len(sizes))

    def _ask_judge(self, judge: WorkerGroup[Any], chunk: pa.Table) -> Callable[[], pa.Table]:
        refs = judge.submit("judge", self._samples(chunk))
        return lambda: judge.wait(refs, "judge")[0]
