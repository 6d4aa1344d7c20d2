"""Chunks of answers on their way to be scored, with engines and scorers that only pretend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from actors.config import FrozenRoleConfig
from actors.groups.group import WorkerGroup
from actors.groups.responses import ResponseCollector
from actors.groups.scoring import Scoring

pytestmark = pytest.mark.slow
ROWS = 10
PROMPTS = pa.table({"prompt": pa.array([[n] * (1 + n % 3) for n in range(ROWS)], pa.list_(pa.int32()))})
CHUNKS = [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]


def pretenders() -> tuple[type, type]:
    """Made inside a function, so that Ray sends them whole: its workers cannot import a test."""

    class Engine:
        """Finishes its parts in an order of its own; with a `flag`, the last one not before that file is there."""

        def __init__(self, backwards: bool, pause_s: float, flag: Path | None = None) -> None:
            self.backwards, self.pause_s, self.flag = backwards, pause_s, flag

        def stream(self, table: pa.Table, parts: list[list[int]], version: int) -> Iterator[tuple[int, pa.Table]]:
            prompts = table.column("prompt").to_pylist()
            numbers = list(range(len(parts)))
            for number in reversed(numbers) if self.backwards else numbers:
                time.sleep(self.pause_s)
                if version < 0:
                    raise RuntimeError("no such weights")
                if self.flag and number == (0 if self.backwards else numbers[-1]):
                    until = time.monotonic() + 60
                    while not self.flag.exists():
                        assert time.monotonic() < until, "nothing was scored before the last part"
                        time.sleep(0.01)
                responses = pa.array([prompts[row] * 2 for row in parts[number]], pa.list_(pa.int32()))
                yield number, pa.table({"response": responses})

    class Scorer:
        """Scores every row by the rows that came with it, and makes the file `flag`."""

        def __init__(self, flag: Path | None = None) -> None:
            self.flag = flag

        def add_columns(self, table: pa.Table, micro_batches: list[list[int]]) -> pa.Table:
            if self.flag:
                self.flag.touch()
            together = sum(row[0] for row in table.column("prompt").to_pylist())
            rewards = [together for micro in micro_batches for _ in micro]
            return pa.table({"reward_model": pa.array(rewards, pa.float32())})

    return Engine, Scorer


class Group(WorkerGroup[Any]):
    """A worker group of actors that are no roles."""

    def __init__(self, role: str, actors: list[Any]) -> None:
        self.role, self.actors, self.ranks = role, actors, len(actors)
        self.timeout_s, self.watch, self._until, self._turns = 120.0, None, None, None


def scored(
    *engines: tuple[bool, float],
    version: int = 0,
    prompts: pa.Table = PROMPTS,
    chunks: list[list[int]] = CHUNKS,
    flag: Path | None = None,
) -> pa.Table:
    remote = ray.remote(num_cpus=0.1)
    engine_class, scorer_class = pretenders()
    scorers: Any = Group("reward", [remote(scorer_class).remote(flag) for _ in range(2)])
    running: Any = Group("rollout", [remote(engine_class).remote(*engine, flag) for engine in engines])
    settings = FrozenRoleConfig(model="none", micro_batch_tokens=8)
    scoring = Scoring({"reward": scorers}, {"reward": settings}, lambda _: [], chunks)
    answers = ResponseCollector(running, prompts, version, scoring)
    return answers.scoring.join(answers.join())


def test_who_is_scored_together_depends_on_order_alone(ray_cluster: Any) -> None:
    expected = [3, 3, 3, 12, 12, 12, 30, 30, 30, 30]
    for engines in ([(True, 0.05)], [(False, 0.1), (True, 0.0), (True, 0.05)]):
        table = scored(*engines)
        assert table.column("prompt").to_pylist() == PROMPTS.column("prompt").to_pylist()
        assert [len(row) for row in table.column("response").to_pylist()] == [2 * (1 + n % 3) for n in range(ROWS)]
        assert table.column("reward_model").to_pylist() == expected


def test_engines_without_rows_are_not_asked(ray_cluster: Any) -> None:
    table = scored((False, 0.0), (False, 0.0), prompts=PROMPTS[1:2], chunks=[[0]])
    assert table.column("response").to_pylist() == [[1, 1, 1, 1]]


def test_a_chunk_is_scored_while_others_are_generated(ray_cluster: Any, tmp_path: Path) -> None:
    table = scored((True, 0.0), flag=tmp_path / "scored")  # the engine waits for that, and no longer than a minute
    assert table.column("reward_model").to_pylist() == [3, 3, 3, 12, 12, 12, 30, 30, 30, 30]


def test_what_an_engine_raises_ends_the_wait(ray_cluster: Any) -> None:
    with pytest.raises(RuntimeError, match="no such weights"):
        scored((False, 0.0), version=-1)
