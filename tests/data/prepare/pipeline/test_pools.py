"""Any pool gives the bytes that this process alone gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.prepare.options import Options
from data.prepare.pipeline.pools import Here, OnRay, open_pool
from data.prepare.pipeline.run import prepare
from data.prepare.reading import sources

pytestmark = pytest.mark.slow


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.pieces_of, "__defaults__", (1000,))
    for name in ("a", "b"):
        lines = [json.dumps({"text": f"{name}第{n * n}号病人，头痛{n}天，加重{n * 3}天。"}) for n in range(60)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join([*lines, lines[0], '{"text": ']), "utf-8")
    return [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_processes(inputs, tmp_path):
    options = Options("text")
    prepare(inputs, tmp_path / "here", options, Here())
    with open_pool(2, size=0) as pool:
        prepare(inputs, tmp_path / "two", options, pool)
    assert content(tmp_path / "here") == content(tmp_path / "two")


def test_ray(inputs, tmp_path, ray_cluster, monkeypatch):
    options = Options("text")
    monkeypatch.chdir(tmp_path)
    prepare(["a.jsonl", "b.jsonl"], tmp_path / "here", options, Here())
    prepare(["a.jsonl", "b.jsonl"], Path("ray"), options, OnRay())
    assert content(tmp_path / "here") == content(tmp_path / "ray")
