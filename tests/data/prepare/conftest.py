"""Files to prepare, and preparing them in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data.prepare.options import Options
from data.prepare.pipeline.pools import Here
from data.prepare.pipeline.run import Outcome, prepare
from data.prepare.reading.readers import Found, read
from data.prepare.reading.sources import describe, pieces_of

Prepared = tuple[Outcome, list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., list[Found]]:
    """Writes bytes under a name and reads them: `found("a.jsonl", b"...")`."""

    def write_and_read(name: str, content: bytes, **options: Any) -> list[Found]:
        path = tmp_path / name
        path.write_bytes(content)
        source = describe(str(path))
        return [one for piece in pieces_of(source) for one in read(piece, Options("text", **options))]

    return write_and_read


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Prepared]:
    """Prepares files into `tmp_path/out` and gives `(outcome, rows, rejects)`."""

    def run(kind: str, *inputs: Path | str, decontaminate: tuple[Path, ...] = (), **options: Any) -> Prepared:
        out = tmp_path / "out"
        outcome = prepare(
            [str(path) for path in inputs], out, Options(kind, **options), Here(), [*map(str, decontaminate)]
        )
        rows = [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        rejects = [json.loads(line) for line in (out / "_rejects.jsonl").read_text("utf-8").splitlines()]
        return outcome, rows, rejects

    return run
