"""Waits for other ranks' work on their hosts, on two gloo ranks; NCCL is a stand-in, which only its name makes."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from ranks import on_ranks

from actors.distributed import host_group as module
from actors.distributed.host_group import HostGroup, host_group, open_host_group
from configs.base import REPOSITORY
from configs.errors import RunError

BUSY_S = 1.5


def named(backend: str) -> Any:
    return patch.object(torch.distributed, "get_backend", lambda group=None: backend)


def waits(rank: int, world: int, backend: str) -> dict[str, Any]:
    """On a rank: both wait while rank 0 works, then give each other what they have."""
    with named(backend):
        host = open_host_group(60)
    own, again = host.group is not torch.distributed.group.WORLD, host_group() is host
    of_world, barrier = [], torch.distributed.barrier

    def noted(group: Any = None, **more: Any) -> Any:
        of_world.extend(["barrier"] if group in (None, torch.distributed.group.WORLD) else [])
        return barrier(group, **more)

    with patch.object(torch.distributed, "barrier", noted):
        began = time.monotonic()
        if rank == 0:
            time.sleep(BUSY_S)
        host.barrier("sleeping")
        waited = time.monotonic() - began
        first = host.of_first_rank({"rank": rank, "step": 7}, "reading")
        every = host.of_every_rank(f"shard-{rank}", "writing")
        largest = host.largest(7 - rank)
    mine = {"own": own, "again": again, "waited": waited, "first": first, "every": every, "largest": largest}
    mine["of_world"] = of_world
    found: list[Any] = [None] * world
    torch.distributed.all_gather_object(found, mine)  # the world is still usable beside the group
    return {"ranks": found, "backend": torch.distributed.get_backend(host.group)}


def test_ranks_of_an_nccl_world_wait_in_a_gloo_group(tmp_path: Path) -> None:
    found = on_ranks(2, __file__, "waits", tmp_path, "nccl")
    assert found["backend"] == "gloo"
    for mine in found["ranks"]:
        assert (mine["own"], mine["again"]) == (True, True)
        assert mine["waited"] >= 0.9 * BUSY_S
        assert mine["first"] == {"rank": 0, "step": 7}
        assert mine["every"] == ["shard-0", "shard-1"]
        assert mine["largest"] == 7
        assert mine["of_world"] == []


def late(rank: int, world: int, patience_s: str) -> dict[str, Any]:
    """On a rank: rank 1 waits less long than rank 0 works, in a group beside the world."""
    with named("nccl"):
        host = HostGroup(60)
    told: list[Any] = [None]
    if rank == 1:
        began = time.monotonic()
        try:
            host.barrier("redistributing the checkpoint", float(patience_s))
        except RunError as error:
            told = [(str(error), time.monotonic() - began)]
    torch.distributed.broadcast_object_list(told, src=1)
    if rank == 0:
        host.barrier("nothing more")  # ends what rank 1 has left
    return {"told": told[0]}


def test_a_wait_that_is_too_long_says_what_for(tmp_path: Path) -> None:
    text, seconds = on_ranks(2, __file__, "late", tmp_path, 0.5)["told"]
    assert text == (
        "rank 1 waited 0.5 s for another rank that is redistributing the checkpoint; raise cluster.host_timeout_s if it "
        "needs longer"
    )
    assert 0.5 <= seconds < 5


def bereft(rank: int, world: int, result: str) -> None:
    """On a rank: rank 1 dies while rank 0 waits for it."""
    if rank == 1:
        time.sleep(0.5)
        os._exit(0)
    began = time.monotonic()
    try:
        host_group().barrier("evaluating")
    except RuntimeError as error:
        torch.save({"kind": type(error).__name__, "seconds": time.monotonic() - began}, result)
    os._exit(0)


def test_a_rank_that_dies_is_no_rank_that_is_slow(tmp_path: Path) -> None:
    found = on_ranks(2, __file__, "bereft", tmp_path, tmp_path / "bereft-2.pt")
    assert found["kind"] == "RuntimeError"
    assert found["seconds"] < 30


def test_a_new_world_has_a_group_of_its_own(world: None, monkeypatch: pytest.MonkeyPatch) -> None:
    of_this = open_host_group(1)
    assert host_group() is of_this
    monkeypatch.setattr(of_this, "world", None)  # as one of a world that was left
    other = host_group()
    assert other is not of_this
    assert other.timeout_s == module.DEFAULT_TIMEOUT_S
    other.barrier("nothing")
    with pytest.raises(ValueError, match="timeout_s 2 is more than the 1 s of the group"):
        of_this.barrier("nothing", 2)
    assert other.of_first_rank([1], "nothing") == [1]
    assert other.of_every_rank([1], "nothing") == [[1]]


IN_STEP = {
    "actors/distributed/host_group.py": {"barrier", "broadcast_object_list", "all_gather_object"},
    "actors/zero/model.py": {"all_gather_object"},  # which micro-batches of a step were not finite
    "trainers/runs/utilization.py": {"barrier"},  # so that all ranks multiply at the same time
}


def test_nothing_waits_for_a_host_in_the_world() -> None:
    found: dict[str, set[str]] = {}
    for path in [*(REPOSITORY / "actors").rglob("*.py"), *(REPOSITORY / "trainers").rglob("*.py")]:
        calls = re.findall(
            r"torch\.distributed\.(monitored_barrier|barrier|\w+_object\w*)\(", path.read_text(encoding="utf-8")
        )
        if calls:
            found[path.relative_to(REPOSITORY).as_posix()] = set(calls)
    assert found == IN_STEP
