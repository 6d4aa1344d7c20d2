"""Scores a step's responses with the frozen roles (reference, reward model, reward functions), chunk by chunk."""

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
"""Converts rows with responses to the samples, with text, that reward functions take."""


class Scoring:
    """Scores that `groups` compute for the chunks of a table. Call `ask` once per chunk, in any order, then `join`."""

    def __init__(
        self, groups: Mapping[str, WorkerGroup[Any]], settings: Mapping[str, Any], samples: Samples, chunks: int
    ) -> None:
        """Computes nothing yet.

        Args:
            groups: the scoring roles' processes, by role.
            settings: settings of the roles, by role.
            samples: converts a chunk to samples for the role `reward_function`.
            chunks: number of chunks of the table.
        """
        self._groups, self._settings, self._samples = groups, settings, samples
        self._asked: list[list[Callable[[], pa.Table]]] = [[] for _ in range(chunks)]

    def ask(self, number: int, chunk: pa.Table) -> None:
        """Submits chunk `number` for scoring; does not block."""
        shared = ray.put(chunk)
        sizes = lengths(chunk, "prompt", "response").tolist()
        self._asked[number] = [
            self._submit_reward_functions(group, chunk)
            if role == "reward_function"
            else self._ask(role, group, shared, sizes)
            for role, group in self._groups.items()
        ]

    def join(self, table: pa.Table) -> pa.Table:
        """Waits for all roles and returns `table`, which is all chunks in order, with the new columns."""
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

    def _submit_reward_functions(self, reward_function: WorkerGroup[Any], chunk: pa.Table) -> Callable[[], pa.Table]:
        refs = reward_function.submit("score", self._samples(chunk))
        return lambda: reward_function.wait(refs, "score")[0]
