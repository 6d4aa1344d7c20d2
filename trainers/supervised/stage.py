"""The interface of a supervised stage, which `trainers.supervised.driver` and `trainers.supervised.rank` call."""

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
from trainers.config.supervised import ChatData, SupervisedConfig, TrainTables

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from actors.modeling.packed import PackedBatch
    from actors.modeling.packed_models import PackedModule

Batch = TypeVar("Batch", bound="PackedBatch")
Config = TypeVar("Config", bound=SupervisedConfig)
Encode = Callable[[str, tuple[str, ...]], tuple[pa.Table, str]]
"""Encodes tables, given the setting that names them and their paths; returns one table and a note for the user."""


@dataclass(frozen=True)
class Examples:
    """A stage's encoded data: Arrow tables with one row per sample, and notes for the user.

    In addition to the stage's columns, each table has `size`, the number of tokens of a row, and `weight`, its number
    of loss terms.
    """

    train: pa.Table
    heldout: pa.Table
    order: Order
    """The order of the rows of `train`."""
    notes: tuple[str, ...] = ()


class Stage(ABC, Generic[Config, Batch]):
    """Base class of supervised stages.

    The driver creates a stage and calls `examples`; every rank gets a copy and calls the other methods. Methods that
    ranks call import model code locally: it takes seconds to import, and the driver needs no models.
    """

    tokenizer: PreTrainedTokenizerBase
    start_export: str | None = None
    """Subfolder of the run's folder for an export of the weights before the first step; None for no such export."""

    start_columns: tuple[str, ...] = ()
    """fp32 columns of both tables for the outputs of `run` with the starting model, (rows, columns); NaN at first."""

    heldout_columns: tuple[str, ...] = ()
    """Columns for the outputs of `run` on held-out rows, (rows, columns), if `heldout_metrics` needs more than sums."""

    show: tuple[str, ...] = ("loss", "tokens_per_second")
    """Metrics that the progress bar shows."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def examples(self) -> Examples:
        """Reads, checks, and encodes the data; sets `tokenizer`.

        Raises:
            ConfigError: a model or setting is invalid.
            DataError: a table cannot be read or encoded.
        """

    @abstractmethod
    def module(self) -> PackedModule:
        """Returns the module to train; its attribute `model` is exported."""

    @abstractmethod
    def batch(self, table: pa.Table, rows: list[int]) -> Batch:
        """Returns a micro-batch, on the CPU, of the given rows of `table`: `Examples.train` or `Examples.heldout`."""

    @abstractmethod
    def run(self, engine: Any, batch: Batch) -> Tensor:
        """Runs the module on a micro-batch and returns its outputs, such as log-probabilities, (N,), or scores, (P, 2)."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Returns the sum of the batch's loss terms, a scalar; the loop divides it by the step's number of terms."""

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns further metrics of a training micro-batch, scalars summed over its loss terms; their means are logged."""
        return {}

    def heldout_sums(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns metrics of a held-out micro-batch, as scalar sums over rows or tokens.

        The names must be the same for every micro-batch.
        """
        return {}

    @abstractmethod
    def heldout_metrics(self, sums: Mapping[str, float], rows: pa.Table) -> dict[str, float]:
        """Returns the held-out metrics, including `heldout_loss`.

        Args:
            sums: the results of `heldout_sums`, added over all micro-batches and ranks.
            rows: the held-out rows with `heldout_columns`.
        """

    def report(self, rows: pa.Table) -> dict[str, Any]:
        """Returns further results on the held-out rows with `heldout_columns`, as JSON, to store with the export."""
        return {}

    def finish(
        self, weights: dict[str, Tensor], metrics: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Postprocesses the trained weights for the export.

        Args:
            weights: full (unsharded) tensors, by name.
            metrics: the held-out metrics of these weights.

        Returns:
            The weights to export, and additions to config.json.
        """
        return weights, {}


@dataclass(frozen=True)
class Job:
    """The inputs of every rank, except for the tables."""

    stage: Stage[Any, Any]
    folder: Path
    """The run's folder, absolute, on a file system that all ranks and the driver share."""
    steps: int
    """Number of optimizer steps of the whole run."""
    order: Order
    """The order of the training rows."""


@dataclass(frozen=True)
class Evaluation:
    """The held-out evaluation of the weights after `step` optimizer steps."""

    step: int
    metrics: dict[str, float]
    report: dict[str, Any]


class LanguageStage(Stage[Config, "PackedBatch"]):
    """Next-token prediction: a loss term is the negative log-likelihood of one predicted token."""

    def run(self, engine: Any, batch: PackedBatch) -> Tensor:
        """Returns the log-probabilities of the N predicted tokens, (N,), in nats."""
        logprobs, _ = engine(batch)
        return logprobs

    def loss(self, outputs: Tensor, batch: PackedBatch) -> Tensor:
        """Returns the negative sum of the log-probabilities, (N,), as a scalar."""
        return -outputs.sum()

    def heldout_sums(self, outputs: Tensor, batch: PackedBatch) -> dict[str, Tensor]:
        """Returns the negative log-likelihood in nats, `nll`, and the number of predicted tokens, as scalars."""
        return {"nll": -outputs.double().sum(), "predicted": torch.tensor(len(batch.predict))}

    def heldout_metrics(self, sums: Mapping[str, float], rows: pa.Table) -> dict[str, float]:
        """Returns the mean loss in nats per token, and its exponential."""
        loss = sums["nll"] / sums["predicted"]
        return {"heldout_loss": loss, "heldout_perplexity": math.exp(loss)}


def encoded(data: ChatData, encode: Encode, seed: int) -> Examples:
    """Encodes the training and held-out tables of `data`, and orders the training rows by `seed`.

    The notes are those of the training tables, the held-out tables, and the weighted sources, in this order.
    """
    train, rows, notes = from_sources(data, encode)
    heldout, note = encode("data.heldout", data.heldout)
    order, mixture = ordered(data, rows, seed)
    return Examples(train, heldout, order, (*notes, f"held out: {note}", *mixture))


def from_sources(data: TrainTables, encode: Encode) -> tuple[pa.Table, list[int], list[str]]:
    """Encodes data.train. Returns the table, the number of rows of each source, and notes.

    With `data.weights`, every entry is a source and is encoded separately; otherwise all entries form one source.
    """
    if data.weights is None:
        table, note = encode("data.train", data.train)
        return table, [table.num_rows], [f"train: {note}"]
    names = [f"data.train[{index}]" for index in range(len(data.train))]
    encoded = [encode(name, (path,)) for name, path in zip(names, data.train, strict=True)]
    notes = [f"{name}: {note}" for name, (_, note) in zip(names, encoded, strict=True)]
    return pa.concat_tables(table for table, _ in encoded), [table.num_rows for table, _ in encoded], notes


def ordered(data: TrainTables, rows: Sequence[int], seed: int) -> tuple[Order, list[str]]:
    """Returns the order in which the training rows are used, and a note for each weighted source.

    Args:
        rows: the number of rows of each source of data.train.
    """
    order = Order(tuple(rows), seed, data.weights)
    if data.weights is None:
        return order, []
    notes = [
        f"{name}: {share / order.rows:.1%} of the training samples, {passes:.3g} passes per epoch"
        for name, share, passes in zip(data.train, order.shares, order.passes, strict=True)
    ]
    return order, notes


def list_row(table: pa.Table, column: str, row: int) -> NDArray[np.int64]:
    """Returns one row of a column of integer lists, (values,)."""
    return table.column(column)[row].values.to_numpy(zero_copy_only=False).astype(np.int64)
