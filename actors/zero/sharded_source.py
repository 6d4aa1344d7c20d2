"""ZeRO-sharded weights as a source for vLLM's own weight transfer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray
from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource, WeightTransferInitRequest
from vllm.distributed.weight_transfer.clients import RayVLLMWeightSyncClient
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from actors.weight_bits import SentBits
from actors.zero.model import ZeroModel


class ShardedWeights(WeightSource):
    """Weight source that yields full tensors in the model's order, gathered one decoder layer at a time."""

    def __init__(self, zero: ZeroModel, sent: SentBits) -> None:
        self._zero, self._sent = zero, sent

    def metadata(self) -> list[ParamMeta]:
        """Returns the names, dtypes, and full shapes of all parameters, without gathering them."""
        return [ParamMeta(name, empty.dtype, tuple(empty.shape)) for name, empty in self._zero.checkpoint_layout()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for block in self._sent.over_blocks(self._zero.checkpoint_blocks()):
            yield from block.items()


class EngineClient(RayVLLMWeightSyncClient):
    """vLLM's client of engine actors, with distinct ranks in the transfer group for each engine.

    The sender is rank 0, and engine i has `ranks` ranks starting at 1 + i * ranks; vLLM's own client gives all of them
    rank 1.
    """

    def __init__(self, engines: Sequence[Any], ranks: int = 1) -> None:
        super().__init__(list(engines))
        self._ranks = ranks

    @property
    def world_size(self) -> int:
        """Number of ranks in the transfer group, including the sender."""
        return 1 + self._ranks * len(self.handles)

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Makes all engines join concurrently; returns when all have joined."""
        infos = [{**init_info, "rank_offset": 1 + index * self._ranks} for index in range(len(self.handles))]
        ray.get(
            [
                handle.init_weight_transfer_engine.remote(WeightTransferInitRequest(init_info=info))
                for handle, info in zip(self.handles, infos, strict=True)
            ]
        )


def open_sender(zero: ZeroModel, sent: SentBits, engines: list[Any], ranks: int, host: str, port: int) -> Any:
    """Creates vLLM's trainer-side transfer engine for this rank, and returns it once the engines have joined.

    Collective: all ranks call it. The first rank is NCCL rank 0; the engine actors, with `ranks` GPUs each, follow it.
    """
    client = EngineClient(engines, ranks)
    return WeightTransferTrainerFactory.trainer_init(
        NCCLTrainerInitInfo(host, port, world_size=client.world_size, rank=zero.rank),
        client=client,
        source=ShardedWeights(zero, sent),
    )
