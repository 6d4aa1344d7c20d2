from __future__ import annotations

import os
from pathlib import Path

import torch
from ranks import on_ranks

from cluster.sockets import listeners


def listens(rank: int, world: int) -> list[tuple[float, list[str]]]:
    """By rank, the sum over the ranks' numbers, and the addresses at which the rank listens."""
    total = torch.tensor([float(rank + 1)])
    torch.distributed.all_reduce(total)
    mine = total.item(), sorted({each.address for each in listeners([os.getpid()])})
    found: list[tuple[float, list[str]]] = [mine] * world
    torch.distributed.all_gather_object(found, mine)
    return found


def test_a_world_listens_at_its_address_only(tmp_path: Path) -> None:
    assert on_ranks(2, __file__, "listens", tmp_path) == [(3.0, ["127.0.0.1"])] * 2
