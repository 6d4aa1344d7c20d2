"""What a stage of supervised training supplies to the loop in `trainers.supervised.driver`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.mixing import Order
from trainers.config.supervised import SupervisedConfig, TrainTables

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from actors.modeling.packed import PackedBatch, PackedModule

Batch = TypeVar("Batch", bound="PackedBatch")
Config = TypeVar("Config", bound=SupervisedConfig)


@dataclass(frozen=True)
class Examples:
    """A stage's encoded data: Arrow tables, a row a sample, and lines for the user about them.

    Beside its own columns each table has `size`, the tokens that a row costs, and `weight`, its terms in the loss.
    """

    train: pa.Table
    heldout: pa.Table
    order: Order
    """Of the rows of `train`."""
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

    heldout_columns: tuple[str, ...] = ()
    """Columns for what `run` gives of every held-out row, (rows, columns), where `heldout_metrics` needs more than sums."""

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
        """Figures beside the loss of a micro-batch that is learned, summed over its loss terms; their means are logged."""
        return {}

    def heldout_sums(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Figures of a held-out micro-batch that add up over micro-batches and ranks; the same names for each."""
        return {}

    @abstractmethod
    def heldout_metrics(self, sums: Mapping[str, float], rows: pa.Table) -> dict[str, float]:
        """What is reported of those sums, and of the held-out rows with `heldout_columns`; `heldout_loss` is in it."""

    def report(self, rows: pa.Table) -> dict[str, Any]:
        """More than numbers about the held-out rows with `heldout_columns`, as JSON, beside the exported model."""
        return {}

    def finish(
        self, weights: dict[str, Tensor], metrics: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights to export, given the trained ones and their held-out metrics, and what config.json says beside."""
        return weights, {}


@dataclass(frozen=True)
class Job:
    """A stage at work: what every rank is given beside the tables."""

    stage: Stage[Any, Any]
    folder: Path
    """The run's folder, absolute, on a file system that all ranks and the driver share."""
    steps: int
    """Optimizer steps in all."""
    order: Order
    """Of the training rows."""


@dataclass(frozen=True)
class Evaluation:
    """What the held-out rows say of the weights after `step` optimizer steps."""

    step: int
    metrics: dict[str, float]
    report: dict[str, Any]


class LanguageStage(Stage[Config, "PackedBatch"]):
    """Next-token prediction: a loss term is the negative log-likelihood of one predicted token."""

    def run(self, engine: Any, batch: PackedBatch) -> Tensor:
        logprobs, _ = engine(batch)
        return logprobs

    def loss(self, outputs: Tensor, batch: PackedBatch) -> Tensor:
        return -outputs.sum()

    def heldout_sums(self, outputs: Tensor, batch: PackedBatch) -> dict[str, Tensor]:
        return {"nll": -outputs.double().sum(), "predicted": torch.tensor(len(batch.predict))}

    def heldout_metrics(self, sums: Mapping[str, float], rows: pa.Table) -> dict[str, float]:
        loss = sums["nll"] / sums["predicted"]
        return {"heldout_loss": loss, "heldout_perplexity": math.exp(loss)}


def from_sources(
    data: TrainTables, encode: Callable[[str, tuple[str, ...]], tuple[pa.Table, str]]
) -> tuple[pa.Table, list[int], list[str]]:
    """What `encode(field, paths)` makes of data.train: table, the rows of each source in it, and notes.

    With weights the entries are sources, encoded one by one; without they are one.
    """
    if data.weights is None:
        table, note = encode("data.train", data.train)
        return table, [table.num_rows], [f"train: {note}"]
    names = [f"data.train[{index}]" for index in range(len(data.train))]
    encoded = [encode(name, (path,)) for name, path in zip(names, data.train, strict=True)]
    notes = [f"{name}: {note}" for name, (_, note) in zip(names, encoded, strict=True)]
    return pa.concat_tables(table for table, _ in encoded), [table.num_rows for table, _ in encoded], notes


def ordered(data: TrainTables, rows: Sequence[int], seed: int) -> tuple[Order, list[str]]:
    """The order in which rows of the entries of data.train, so many of each, are learned, and a note for each weight."""
    order = Order(tuple(rows), seed, data.weights)
    if data.weights is None:
        return order, []
    said = [
        f"{name}: {share / order.rows:.1%} of what is learned, {passes:.3g} passes an epoch"
        for name, share, passes in zip(data.train, order.shares, order.passes, strict=True)
    ]
    return order, said


def list_row(table: pa.Table, column: str, row: int) -> NDArray[np.int64]:
    """One row of a column of integer lists."""
    return table.column(column)[row].values.to_numpy(zero_copy_only=False).astype(np.int64)
