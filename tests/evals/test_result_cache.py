from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from configs.errors import ConfigError
from evals.result_cache import CHUNK, ResultCache

REQUESTS = [[n, n + 1] for n in range(2 * CHUNK + 50)]


class Model:
    """Answers a third of the request's first number, until it is killed."""

    def __init__(self, chunks: int = 99) -> None:
        self.left, self.asked = chunks, list[int]()

    def __call__(self, requests: Sequence[list[int]]) -> list[float]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked.append(len(requests))
        return [request[0] / 3 for request in requests]


def test_what_was_answered_before_a_kill_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "ledger.jsonl"
    whole = ResultCache(tmp_path / "b.jsonl").through(["score"], REQUESTS, Model())
    with pytest.raises(KeyboardInterrupt):
        ResultCache(path).through(["score"], REQUESTS, Model(chunks=2))
    model, again = Model(), ResultCache(path)
    assert again.through(["score"], REQUESTS, model) == whole == [n / 3 for n in range(len(REQUESTS))]
    assert model.asked == [50]
    assert again.recalled == 2 * CHUNK
    again.close()
    assert not path.exists()


def test_half_a_line_is_asked_for_again_and_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ResultCache(path).through(["score"], REQUESTS, Model())
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    model = Model()
    ResultCache(path).through(["score"], REQUESTS, model)
    assert model.asked == [50]
    assert path.read_bytes() == content


def test_another_model_or_setting_is_another_question(tmp_path: Path) -> None:
    result_cache, model = ResultCache(tmp_path / "ledger.jsonl"), Model()
    for what in (["a", "score"], ["b", "score"], ["a", "generate"], ["a", "score"]):
        result_cache.through(what, [[1, 2]], model)
    assert model.asked == [1, 1, 1]


def test_damage_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"chunk": "a", "answers": []}\n{坏}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"ledger.jsonl:2: damaged .* delete the file"):
        ResultCache(path)
