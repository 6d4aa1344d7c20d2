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
        in_turn: bool = False,
    ) -> None:
        """Selects the frozen roles that `settings` has; `begin` and `score` use them.

        Args:
            groups: the roles' processes, by role.
            settings: settings of the roles to use, by role; those that do not score are ignored.
            samples: converts a chunk to samples for the role `reward_function`.
            minibatches: parts of a step's rows, which chunks do not cross.
            chunk_rows: rows of a chunk; None for one chunk per minibatch.
            in_turn: whether a role scores all chunks before the next begins, and none while responses are generated.
        """
        self._groups = {role: groups[role] for role in FROZEN if role in settings}
        self._settings, self._samples = settings, samples
        self._minibatches, self._chunk_rows, self._in_turn = minibatches, chunk_rows, in_turn

    def begin(self, rows: int, roles: Sequence[str] = FROZEN) -> Scoring:
        """Returns the scoring of a step of `rows` rows; the caller submits its chunks.

        Args:
            rows: number of rows.
            roles: which roles score; those that were not started are ignored.
        """
        groups = {role: group for role, group in self._groups.items() if role in roles}
        chunks = row_chunks(rows, self._minibatches, self._chunk_rows)
        return Scoring(groups, self._settings, self._samples, chunks, self._in_turn)

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
        in_turn: bool = False,
    ) -> None:
        """Prepares the scoring of `chunks`; `submit` starts it.

        Args:
            groups: the scoring roles' processes, by role.
            settings: settings of the roles, by role.
            samples: converts a chunk to samples for the role `reward_function`.
            chunks: row numbers of each chunk; together all rows in order.
            in_turn: whether models score only in `join`, one role after another.
        """
        self._groups, self._settings, self._samples, self._in_turn = groups, settings, samples, in_turn
        self.chunks = chunks
        self._chunks: dict[int, tuple[pa.Table, ray.ObjectRef]] = {}
        self._started: dict[str, dict[int, Callable[[], pa.Table]]] = {role: {} for role in groups}

    def submit(self, number: int, chunk: pa.Table) -> None:
        """Submits chunk `number` for scoring; does not block."""
        self._chunks[number] = chunk, ray.put(chunk)
        for role in self._groups:
            if role == "reward_function" or not self._in_turn:
                self._start(role, number)

    def join(self, table: pa.Table) -> pa.Table:
        """Waits for all roles and returns `table`, which is all chunks in order, with the new columns."""
        for role, started in self._started.items():
            for number in range(len(self.chunks)):
                if number not in started:
                    self._start(role, number)
            parts = [started[number]() for number in range(len(self.chunks))]
            table = extended(table, pa.concat_tables(parts).combine_chunks(), role)
        return table

    def _start(self, role: str, number: int) -> None:
        group, (chunk, shared) = self._groups[role], self._chunks[number]
        if role == "reward_function":
            refs = group.submit("score", self._samples(chunk))
            self._started[role][number] = lambda: group.wait(refs, "score")[0]
            return
        sizes = lengths(chunk, "prompt", "response").tolist()
        plan = frozen_plan(sizes, group.ranks, self._settings[role].micro_batch_tokens)
        flying = ColumnsInFlight(group, "add_columns", shared, plan)
        self._started[role][number] = lambda: flying.columns(len(sizes))
