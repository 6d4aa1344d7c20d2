"""Ray Train's torch.distributed backend, with a store that listens only on the node's address."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from actors.distributed.store import bind_stores_to_their_host


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(bind_stores_to_their_host)
        super().on_start(worker_group, backend_config)


class WorldConfig(TorchConfig):
    """Ray Train's `TorchConfig`, with a store that listens only on the node's address."""

    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend
