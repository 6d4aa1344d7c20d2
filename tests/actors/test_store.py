from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from heads import free_port

ROOT = Path(__file__).resolve().parents[2]
RANK = """
import os, sys, torch
from actors.devices import join_world
from cluster.sockets import listeners
rank, port = int(sys.argv[1]), int(sys.argv[2])
join_world(rank, 2, "127.0.0.1", port, 60)
total = torch.tensor([float(rank + 1)])
torch.distributed.all_reduce(total)
print(total.item(), *sorted({each.address for each in listeners([os.getpid()])}))
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def test_a_world_listens_at_its_address_only() -> None:
    port = str(free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), port],
            cwd=ROOT,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    assert [rank.communicate(timeout=120)[0] for rank in ranks] == ["3.0 127.0.0.1\n"] * 2
