"""Reference log-probabilities of every row, computed once before the first step and stored in the run's folder.

A stage that compares the trained model with its starting model names columns for them (`Stage.start_columns`). They are
computed before training changes the weights, so the starting model is not kept in memory. A resumed run reads the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor

from actors.distributed.devices import device
from configs.errors import ConfigError
from data.tables import column_values
from storage.checksummed import read_checksummed, read_or_set_aside, write_checksummed

if TYPE_CHECKING:
    from actors.distributed.host_group import HostGroup
    from actors.zero.model import ZeroModel
    from trainers.config.supervised import SupervisedConfig
    from trainers.supervised.stage import Job, Stage

FILE = "starting.parquet"
"""File in the run's folder: the start columns and `size` of the training rows, then of the held-out rows."""


class Rank(Protocol):
    """The part of `trainers.supervised.rank.Rank` that this module uses."""

    job: Job
    stage: Stage[Any, Any]
    config: SupervisedConfig
    model: ZeroModel
    host: HostGroup
    train: pa.Table
    heldout: pa.Table

    def plan(self, sizes: list[int]) -> list[list[int]]:
        """Returns the rank's micro-batches, as lists of indices into `sizes`, the numbers of tokens of the rows."""
        ...


def with_start_columns(rank: Rank) -> tuple[pa.Table, pa.Table]:
    """Returns `rank.train` and `rank.heldout` with their start columns filled.

    All ranks must call it, before a checkpoint is loaded.

    Raises:
        ConfigError: the file was computed from other rows.
    """
    path = rank.job.folder / FILE
    sizes = pa.concat_tables([rank.train.select(["size"]), rank.heldout.select(["size"])])
    read = read_or_set_aside(path, "it is computed again") if rank.model.rank == 0 else None
    if not rank.host.of_first_rank(read is not None, f"reading {FILE}"):
        heldout = list(range(rank.heldout.num_rows))
        train = _outputs(rank, rank.train, _learned_rows(rank), rank.config.batch_size)
        outputs = torch.cat([train, _outputs(rank, rank.heldout, heldout, len(heldout))])
        if rank.model.rank == 0:
            for name, column in zip(rank.stage.start_columns, outputs.T, strict=True):
                sizes = sizes.append_column(name, pa.array(column.numpy()))
            write_checksummed(path, sizes, {})
        rank.host.barrier(f"writing {FILE}")
    kept, _ = read_checksummed(path)
    if not kept.column("size").equals(sizes.column("size")):
        raise ConfigError(
            f"{path}: was computed from other rows than data.train and data.heldout have now; restore the "
            "tables, or choose another run name"
        )
    return _filled(rank.train, kept), _filled(rank.heldout, kept.slice(rank.train.num_rows))


def _learned_rows(rank: Rank) -> list[int]:
    """Returns the training rows that at least one step uses, each once, in the order of their first use."""
    steps, size, order = rank.job.steps, rank.config.batch_size, rank.job.order
    if order.weights is None:  # the first epoch has every row
        steps = min(steps, -(-order.rows // size))
    return list(dict.fromkeys(row for step in range(steps) for row in order.of_step(step, size)))


def _outputs(rank: Rank, table: pa.Table, order: list[int], size: int) -> Tensor:
    """Returns the model's outputs for the rows in `order`, (rows of the table, start columns) fp32; NaN for other rows.

    Computes `size` rows at a time, split into micro-batches in the same way as in a training step, so that the outputs
    equal those of the first step bit for bit. The last group is padded with rows from the beginning, because every rank
    needs a row; the outputs of the padding are discarded.
    """
    columns = len(rank.stage.start_columns)
    found = torch.zeros(table.num_rows, columns, device=device())
    lengths = column_values(table, "size")
    for first in range(0, len(order), size):
        rows = [order[(first + index) % len(order)] for index in range(size)]
        for micro in rank.plan([lengths[row] for row in rows]):
            batch = rank.stage.batch(table, [rows[index] for index in micro]).to(device())
            outputs = rank.stage.run(rank.model.forward, batch)
            for output, index in zip(outputs, micro, strict=True):
                if first + index < len(order):
                    found[rows[index]] = output
    torch.distributed.all_reduce(found)  # sums: each row was computed by one rank and is 0 on the others
    known = torch.full((table.num_rows, columns), torch.nan)
    known[order] = found.cpu()[order]
    return known


def _filled(table: pa.Table, kept: pa.Table) -> pa.Table:
    for name in kept.drop_columns(["size"]).column_names:
        values = kept.column(name).slice(0, table.num_rows)
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table
