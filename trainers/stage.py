"""What a stage of supervised training supplies to the loop in `trainers.supervised`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.supervised_config import SupervisedConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from actors.packed import PackedBatch, PackedModule

Batch = TypeVar("Batch", bound="PackedBatch")
Config = TypeVar("Config", bound=SupervisedConfig)


@dataclass(frozen=True)
class Examples:
    """A stage's encoded data: Arrow tables, a row a sample, and lines for the user about them.

    Beside its own columns each table has `size`, the tokens that a row costs, and `weight`, its terms in the loss.
    """

    train: pa.Table
    heldout: pa.Table
    notes: tuple[str, ...] = ()


class Stage(ABC, Generic[Config, Batch]):
    """One stage: made on the driver, which calls `examples`, then sent to every rank, which calls the rest.

    What only ranks need of models is imported in the methods that they call: it takes seconds, and the driver has none.
    """

    tokenizer: PreTrainedTokenizerBase
    start_export: str | None = None
    """Folder, in the run's, to which the weights before the first step are exported, if they are."""

    start_columns: tuple[str, ...] = ()
    """fp32 columns of both tables for what `run` gives of the starting model, (rows, columns); NaN until ranks fill them."""

    show: tuple[str, ...] = ("loss", "tokens_per_second")
    """Metrics that the progress bar shows."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def examples(self) -> Examples:
        """Reads, checks and encodes the data; sets `tokenizer`. Raises ConfigError or DataError for bad input."""

    @abstractmethod
    def module(self) -> PackedModule:
        """The module to train; its attribute `model` is what is exported."""

    @abstractmethod
    def batch(self, table: pa.Table, rows: list[int]) -> Batch:
        """One micro-batch, on the CPU, of these rows of `Examples.train` or `Examples.heldout`."""

    @abstractmethod
    def run(self, engine: Any, batch: Batch) -> Tensor:
        """What the module returns for a micro-batch."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The sum of the batch's loss terms, a scalar; the loop divides by the number of terms in the whole step."""

    def figures(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Figures beside the loss of a micro-batch that is learnt, summed over its loss terms; their means are logged."""
        return {}

    @abstractmethod
    def heldout_sums(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Figures of a held-out micro-batch that add up over micro-batches and ranks; the same names for each."""

    @abstractmethod
    def heldout_metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        """What is reported of those sums over all held-out rows."""

    def finish(self, weights: dict[str, Tensor], sums: Mapping[str, float]) -> dict[str, Tensor]:
        """The weights to export, given the trained ones and their held-out sums."""
        return weights


@dataclass(frozen=True)
class Job:
    """A stage at work: what every rank is given beside the tables."""

    stage: Stage[Any, Any]
    folder: Path
    """The run's folder, absolute, on a file system that all ranks and the driver share."""
    steps: int
    """Optimiser steps in all."""


class LanguageStage(Stage[Config, "PackedBatch"]):
    """Next-token prediction: a loss term is the negative log-likelihood of one predicted token."""

    def run(self, engine: Any, batch: PackedBatch) -> Tensor:
        logprobs, _ = engine(batch)
        return logprobs

    def loss(self, outputs: Tensor, batch: PackedBatch) -> Tensor:
        return -outputs.sum()

    def heldout_sums(self, outputs: Tensor, batch: PackedBatch) -> dict[str, Tensor]:
        return {"nll": -outputs.double().sum(), "predicted": torch.tensor(len(batch.predict))}

    def heldout_metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        loss = sums["nll"] / sums["predicted"]
        return {"heldout_loss": loss, "heldout_perplexity": math.exp(loss)}


def list_row(table: pa.Table, column: str, row: int) -> NDArray[np.int64]:
    """One row of a column of integer lists."""
    return table.column(column)[row].values.to_numpy(zero_copy_only=False).astype(np.int64)
