"""Model FLOPs utilization (MFU, Chowdhery et al. 2022, appendix B), relative to the measured speed of matmuls."""

from __future__ import annotations

import logging

import torch

from actors.distributed.devices import DTYPES, device
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM, PackedModule
from actors.sizing.shape import Shape, shape_of
from actors.sizing.throughput import matmul_flops, training_flops
from actors.zero.model import ZeroModel
from configs.errors import ConfigError
from trainers.config.supervised import SupervisedConfig

logger = logging.getLogger(__name__)

TOKENS = 4096
"""Number of rows of the matrix that is multiplied, unless `micro_batch_tokens` is smaller."""


class Utilization:
    """MFU of all ranks together.

    Measures the peak speed before training, by multiplying the model's feed-forward matrix in the training processes,
    on all ranks at the same time, as in training.
    """

    def __init__(self, model: ZeroModel, module: PackedModule, config: SupervisedConfig) -> None:
        """Measures the peak speed, so all ranks must call it. For models of unknown shape, MFU is not reported."""
        self._frozen = config.lora is not None
        self._predicts = isinstance(module, PackedLM)
        self._shape = _shape(model)
        self._rate = 0.0
        if self._shape is not None:
            tokens, dtype = min(TOKENS, config.micro_batch_tokens), DTYPES[config.zero.dtype]
            torch.distributed.barrier()
            rate = matmul_flops(tokens, self._shape.hidden, self._shape.intermediate, dtype, device())
            self._rate = model.sum_over_ranks({"rate": torch.tensor(rate, dtype=torch.float64)})["rate"]

    def flops(self, batch: PackedBatch) -> float:
        """Returns the number of floating-point operations of training on a micro-batch; 0 if the shape is unknown."""
        if self._shape is None:
            return 0.0
        predicted = len(batch.predict) if self._predicts else 0  # a scalar head has no vocabulary
        return training_flops(self._shape, batch.lengths, predicted, self._frozen)

    def metrics(self, flops: float, seconds: float) -> dict[str, float]:
        """Returns the `mfu` of a step: the ratio of `flops`, over all ranks, to those possible in `seconds`.

        The result is empty if the model's shape is unknown.
        """
        return {} if self._shape is None else {"mfu": flops / (seconds * self._rate)}


def _shape(model: ZeroModel) -> Shape | None:
    try:
        return shape_of(model.model.config.to_dict(), "the model")
    except ConfigError as error:
        if model.rank == 0:
            logger.info("mfu is not reported: %s", error)
        return None
