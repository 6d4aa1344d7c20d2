"""The transfer group of vLLM's NCCL transport, with handles that note what they are asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from actors.zero.sharded_source import EngineClient


def handles(count: int) -> tuple[list[Any], list[dict[str, Any]]]:
    """Stubs of engine actors, and what each was told at its start, in order."""
    told: list[dict[str, Any]] = []

    def joins(request: Any) -> None:
        told.append(request.init_info)

    return [SimpleNamespace(init_weight_transfer_engine=SimpleNamespace(remote=joins)) for _ in range(count)], told


@pytest.mark.parametrize(
    ("engines", "ranks", "offsets", "world"), [(1, 1, [1], 2), (3, 1, [1, 2, 3], 4), (2, 4, [1, 5], 9)]
)
def test_every_engine_has_ranks_of_its_own(
    monkeypatch: pytest.MonkeyPatch, engines: int, ranks: int, offsets: list[int], world: int
) -> None:
    monkeypatch.setattr("actors.zero.sharded_source.ray.get", lambda refs: refs)
    stubs, told = handles(engines)
    client = EngineClient(stubs, ranks)
    client.init_weight_transfer_engine(
        {"master_address": "10.0.0.1", "rank_offset": 1, "world_size": client.world_size}
    )
    assert [info["rank_offset"] for info in told] == offsets
    assert {info["world_size"] for info in told} == {world}
    covered = sorted(info["rank_offset"] + worker for info in told for worker in range(ranks))
    assert covered == list(range(1, world))  # the sender is 0
