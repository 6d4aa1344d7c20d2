"""Chunks of answers on their way to be scored, with engines and scorers that only pretend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import ray

from actors.answers import Answers
from actors.config import FrozenRoleConfig
from actors.scoring import Scoring

pytestmark = pytest.mark.slow
ROWS = 10
PROMPTS = pa.table({"prompt": pa.array([[n] * (1 + n % 3) for n in range(ROWS)], pa.list_(pa.int32()))})
CHUNKS = [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]


def pretenders() -> tuple[type, type]:
    """Made inside a function, so that Ray sends them whole: its workers cannot import a test."""

    class Engine:
        """Finishes its parts in an order of its own."""

        def __init__(self, backwards: bool, pause_s: float) -> None:
            self.backwards, self.pause_s = backwards, pause_s

        def stream(self, table: pa.Table, parts: list[list[int]], version: int) -> Iterator[tuple[int, pa.Table]]:
            numbers = list(range(len(parts)))
            for number in reversed(numbers) if self.backwards else numbers:
                time.sleep(self.pause_s)
                if version < 0:
                    raise RuntimeError("no such weights")
                prompts = table.column("prompt").to_pylist()
                yield (
                    number,
                    pa.table({"response": pa.array([prompts[row] * 2 for row in parts[number]], pa.list_(pa.int32()))}),
                )

    class Scorer:
        """Says of every row when and in which company it came."""

        def add_columns(self, table: pa.Table, micro_batches: list[list[int]]) -> pa.Table:
            company = sum(row[0] for row in table.column("prompt").to_pylist())
            rows = [row for micro in micro_batches for row in micro]
            return pa.table({"company": [company for _ in rows], "when": [time.time() for _ in rows]})

    return Engine, Scorer


class Group:
    """A worker group of actors that are no roles."""

    timeout_s = 30.0

    def __init__(self, role: str, actors: list[Any]) -> None:
        from actors.group import WorkerGroup

        self.role, self.actors, self.ranks = role, actors, len(actors)
        for method in ("submit", "wait", "submit_rows", "submit_streams"):
            setattr(self, method, getattr(WorkerGroup, method).__get__(self))


def scored(*engines: tuple[bool, float], version: int = 0) -> pa.Table:
    remote = ray.remote(num_cpus=0.1)
    engine_class, scorer_class = pretenders()
    scorers: Any = Group("reward", [remote(scorer_class).remote() for _ in range(2)])
    running: Any = Group("rollout", [remote(engine_class).remote(*engine) for engine in engines])
    settings = FrozenRoleConfig(model="none", micro_batch_tokens=8)
    scoring = Scoring({"reward": scorers}, {"reward": settings}, lambda _: [], len(CHUNKS))
    answers = Answers(running, PROMPTS, CHUNKS, version, scoring)
    return answers.scoring.join(answers.join())


def test_who_is_scored_together_depends_on_order_alone(ray_cluster: Any) -> None:
    expected = [3, 3, 3, 12, 12, 12, 30, 30, 30, 30]
    for engines in ([(False, 0.0)], [(True, 0.05)], [(False, 0.1), (True, 0.0), (True, 0.05)], [(False, 0.0)] * 12):
        table = scored(*engines)
        assert table.column("prompt").to_pylist() == PROMPTS.column("prompt").to_pylist()
        assert [len(row) for row in table.column("response").to_pylist()] == [2 * (1 + n % 3) for n in range(ROWS)]
        assert table.column("company").to_pylist() == expected


def test_a_chunk_is_scored_while_others_are_generated(ray_cluster: Any) -> None:
    when = scored((True, 0.5)).column("when").to_pylist()
    assert max(when[6:]) + 0.2 < min(when[3:6])
    assert max(when[3:6]) + 0.2 < min(when[:3])


def test_what_an_engine_raises_ends_the_wait(ray_cluster: Any) -> None:
    with pytest.raises(RuntimeError, match="no such weights"):
        scored((False, 0.0), version=-1)
