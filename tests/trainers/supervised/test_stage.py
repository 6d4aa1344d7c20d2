from __future__ import annotations

import pyarrow as pa

from trainers.config.supervised import ChatData
from trainers.supervised.stage import encoded

ROWS = {"a": 3, "b": 1, "c": 2}


def encode(field: str, paths: tuple[str, ...]) -> tuple[pa.Table, str]:
    """Returns as many rows for each path as `ROWS` says."""
    names = [path for path in paths for _ in range(ROWS[path])]
    return pa.table({"name": names}), f"{field} has {len(names)}"


def test_sources_are_encoded_together_without_weights() -> None:
    found = encoded(ChatData(train=("a", "b"), heldout=("c",)), encode, seed=1)
    assert found.train.column("name").to_pylist() == ["a", "a", "a", "b"]
    assert found.heldout.column("name").to_pylist() == ["c", "c"]
    assert found.notes == ("train: data.train has 4", "held out: data.heldout has 2")
    assert found.order.sources == (4,)


def test_weighted_sources_are_encoded_one_by_one_and_noted_after_the_held_out_rows() -> None:
    found = encoded(ChatData(train=("a", "b"), weights=(1.0, 3.0), heldout=("c",)), encode, seed=1)
    assert found.train.column("name").to_pylist() == ["a", "a", "a", "b"]
    assert found.order.sources == (3, 1)
    assert found.notes[:3] == (
        "data.train[0]: data.train[0] has 3",
        "data.train[1]: data.train[1] has 1",
        "held out: data.heldout has 2",
    )
    assert [note.split(":")[0] for note in found.notes[3:]] == ["a", "b"]
