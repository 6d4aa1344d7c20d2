"""ZeRO-sharded weights as the stream that vLLM's own weight transfer sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.clients import RayVLLMWeightSyncClient
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from actors.zero import ZeroModel


class ShardedWeights(WeightSource):
    """Full tensors in the model's order, gathered one decoder layer at a time."""

    def __init__(self, zero: ZeroModel) -> None:
        self._zero = zero

    def metadata(self) -> list[ParamMeta]:
        """Names, dtypes and full shapes, without gathering anything."""
        return [
            ParamMeta(name, parameter.dtype, tuple(getattr(parameter, "ds_shape", parameter.shape)))
            for name, parameter in self._zero.model.named_parameters()
        ]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self._zero.weights()


def open_sender(zero: ZeroModel, engines: list[Any], host: str, port: int) -> Any:
    """vLLM's trainer-side transfer engine for this rank; the first rank is NCCL rank 0, engine actors follow.

    Every rank calls it; it returns when the engines have joined. One GPU an engine.
    """
    return WeightTransferTrainerFactory.trainer_init(
        NCCLTrainerInitInfo(host, port, world_size=1 + len(engines), rank=zero.rank),
        client=RayVLLMWeightSyncClient(engines),
        source=ShardedWeights(zero),
    )
