"""Base class of policy and critic: optimizer steps over rows of the table, checkpoints, and export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
from torch import Tensor

from actors.distributed.devices import device
from actors.modeling.packed import PackedBatch
from actors.modeling.rows import pack, tokens
from actors.roles.worker import ForwardWorker, needs
from actors.table import require
from actors.zero.diverged import NotFiniteError
from cluster.memory import return_free_memory

if TYPE_CHECKING:
    from actors.zero.model import ZeroModel


@dataclass(frozen=True)
class Update:
    """One rank's part of one optimizer step."""

    micro_batches: list[list[int]]  # rows of the table
    has_trained_rows: bool = True  # False: no rank has a row to train on


@dataclass(frozen=True)
class TrainBatch:
    """A packed micro-batch and the columns that its loss needs, in the order of the predicted tokens."""

    packed: PackedBatch
    columns: dict[str, Tensor]  # (N,) each
    world_size: int

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]


class TableLoss(Protocol):
    """A loss over rows of the table. It is sent to every rank, so it must be picklable."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the loss reads, each with one value per response token."""

    def __call__(self, outputs: Any, batch: TrainBatch, /) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of a micro-batch and its metrics, all scalars; see `actors.zero.model.Loss`."""


class Learner(ForwardWorker):
    """A role trained with DeepSpeed. Subclasses set `zero`."""

    trains = True
    zero: ZeroModel

    def run_model(self, engine: Any, batch: TrainBatch) -> Any:
        """Runs the model on a micro-batch and returns what the loss needs.

        Raises NotImplementedError unless overridden.
        """
        raise NotImplementedError

    def update(self, table: pa.Table, updates: list[Update], loss: TableLoss) -> list[dict[str, float]]:
        """Runs the optimizer steps of `updates` in order and returns the metrics of each.

        Raises:
            NotFiniteError: a loss or gradient is not finite; the error's `update` is the index in `updates`.
            TableError: `prompt`, `response`, or a column that the loss reads is missing.
        """
        require(table, ("prompt", "response", *loss.columns), f"the update of {type(self).__name__}")
        metrics = []
        for index, update in enumerate(updates):
            try:
                metrics.append(
                    self.zero.update(
                        self._batches(table, update, loss.columns), self.run_model, loss, update.has_trained_rows
                    )
                )
            except NotFiniteError as error:
                error.update = index
                raise
        if device().type == "cpu":
            return_free_memory()  # a quarter to a half of the process's memory, which the other roles need next
        return metrics

    def _batches(self, table: pa.Table, update: Update, columns: tuple[str, ...]) -> list[TrainBatch]:
        target = device()
        return [
            TrainBatch(
                pack(table, rows).to(target),
                {name: tokens(table, name, rows).to(target) for name in columns},
                self.zero.world_size,
            )
            for rows in update.micro_batches
        ]

    def save(self, folder: str) -> None:
        """Copies this rank's shard of a checkpoint and starts writing it to `folder`; `saved` waits for the disk."""
        self.zero.save(Path(folder))

    @needs("nothing")
    def saved(self, folder: str) -> dict[str, str]:
        """Waits until this rank's shard is on disk and returns its checksums; see `ZeroModel.saved`."""
        return self.zero.saved(Path(folder))

    def load(self, folder: str) -> None:
        """Restores what `save` wrote."""
        self.zero.load(Path(folder))

    @needs("weights")
    def export(self, folder: str) -> None:
        """Writes the full model to `folder` in Hugging Face format. Collective: all ranks gather, rank 0 writes."""
        from actors.modeling.models import save_pretrained

        state = self.zero.full_state()
        if self.zero.rank == 0:
            save_pretrained(self.zero.model, state, Path(folder))
