"""Scores a step's responses with the frozen roles (reference, reward model, reward functions), chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray

from actors.groups.batching import frozen_plan, row_chunks
from actors.groups.group import ColumnsInFlight, WorkerGroup
from actors.modeling.rows import lengths
from actors.rewards.sample import Sample
from actors.table import extended

FROZEN = ("reference", "reward", "reward_function")
REWARDING = ("reward", "reward_function")

Samples = Callable[[pa.Table], list[Sample]]
"""Converts rows with responses to the samples, with text, that reward functions take."""


class Scorers:
    """The frozen roles, which score a step's responses while others are still being generated."""

    def __init__(
        self,
        groups: Mapping[str, WorkerGroup[Any]],
        settings: Mapping[str, Any],
        samples: Samples,
        minibatches: int = 1,
        chunk_rows: int | None = None,
    ) -> None:
        """Selects the frozen roles that `settings` has; `begin` and `score` use them.

        Args:
            groups: the roles' processes, by role.
            settings: settings of the roles to use, by role; those that do not score are ignored.
            samples: converts a chunk to samples for the role `reward_function`.
            minibatches: parts of a step's rows, which chunks do not cross.
            chunk_rows: rows of a chunk; None for one chunk per minibatch.
        """
        self._groups = {role: groups[role] for role in FROZEN if role in settings}
        self._settings, self._samples = settings, samples
        self._minibatches, self._chunk_rows = minibatches, chunk_rows

    def begin(self, rows: int, roles: Sequence[str] = FROZEN) -> Scoring:
        """Returns the scoring of a step of `rows` rows; the caller submits its chunks.

        Args:
            rows: number of rows.
            roles: which roles score; those that were not started are ignored.
        """
        groups = {role: group for role, group in self._groups.items() if role in roles}
        chunks = row_chunks(rows, self._minibatches, self._chunk_rows)
        return Scoring(groups, self._settings, self._samples, chunks)

    def score(self, table: pa.Table, roles: Sequence[str] = FROZEN) -> Scoring:
        """Submits all rows of `table`, which has all responses, and returns their scoring; does not block."""
        scoring = self.begin(len(table), roles)
        for number, rows in enumerate(scoring.chunks):
            scoring.submit(number, table.take(rows).combine_chunks())
        return scoring


class Scoring:
    """Scores that the frozen roles compute for the chunks of a table.

    Call `submit` once per chunk, in any order, and then `join`.
    """

    def __init__(
        self,
        groups: Mapping[str, WorkerGroup[Any]],
        settings: Mapping[str, Any],
        samples: Samples,
        chunks: list[list[int]],
    ) -> None:
        """Prepares the scoring of `chunks`; `submit` starts it.

        Args:
            groups: the scoring roles' processes, by role.
            settings: settings of the roles, by role.
            samples: converts a chunk to samples for the role `reward_function`.
            chunks: row numbers of each chunk; together all rows in order.
        """
        self._groups, self._settings, self._samples = groups, settings, samples
        self.chunks = chunks
        self._submitted: list[list[Callable[[], pa.Table]]] = [[] for _ in chunks]

    def submit(self, number: int, chunk: pa.Table) -> None:
        """Submits chunk `number` for scoring; does not block."""
        shared = ray.put(chunk)
        sizes = lengths(chunk, "prompt", "response").tolist()
        self._submitted[number] = [
            self._submit_reward_functions(group, chunk)
            if role == "reward_function"
            else self._submit(role, group, shared, sizes)
            for role, group in self._groups.items()
        ]

    def join(self, table: pa.Table) -> pa.Table:
        """Waits for all roles and returns `table`, which is all chunks in order, with the new columns."""
        chunks = [[columns() for columns in chunk] for chunk in self._submitted]
        for role, parts in zip(self._groups, zip(*chunks, strict=True), strict=True):
            table = extended(table, pa.concat_tables(parts).combine_chunks(), role)
        return table

    def _submit(
        self, role: str, group: WorkerGroup[Any], chunk: ray.ObjectRef, sizes: list[int]
    ) -> Callable[[], pa.Table]:
        plan = frozen_plan(sizes, group.ranks, self._settings[role].micro_batch_tokens)
        flying = ColumnsInFlight(group, "add_columns", chunk, plan)
        return lambda: flying.columns(len(sizes))

    def _submit_reward_functions(self, reward_function: WorkerGroup[Any], chunk: pa.Table) -> Callable[[], pa.Table]:
        refs = reward_function.submit("score", self._samples(chunk))
        return lambda: reward_function.wait(refs, "score")[0]
