"""One rank of supervised training: the loop itself, as every worker of Ray Train runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from actors.batching import Plan, balanced_plan, rows_at
from actors.checkpoint import CheckpointStore
from actors.devices import device
from actors.diverged import DivergedError, NotFiniteError
from actors.models import save_pretrained
from actors.packed import PackedBatch
from actors.zero import ZeroModel
from data.packing import rows_of_step
from trainers.export import export_model
from trainers.stage import Job
from trainers.starting import with_start_columns

Send = Callable[[str, int, dict[str, Any]], None]
"""(kind, steps done, figures) to the driver; the kinds are `start`, `step`, and `diverged` with its `error`."""


class Rank:
    """Trains `job.stage` from its newest checkpoint, or from its start, to the end. All ranks walk in step."""

    def __init__(self, job: Job, train: pa.Table, heldout: pa.Table, send: Send) -> None:
        self.job, self.train, self.heldout = job, train, heldout
        self.stage, self.config = job.stage, job.stage.config
        self.model = ZeroModel(self.stage.module(), self.config.zero, self.config.optimizer, job.steps)
        self.checkpoints = CheckpointStore(job.folder / "checkpoints", self.config.keep_checkpoints)
        self.saving: int | None = None
        """The step whose checkpoint is being written."""
        self.send: Send = send if self.model.rank == 0 else lambda *_: None
        self.sizes: list[int] = train.column("size").to_pylist()
        self.weights: list[int] = train.column("weight").to_pylist()
        self.heldout_plan = self.plan(heldout.column("size").to_pylist())

    def run(self) -> None:
        if self.stage.start_columns:
            self.train, self.heldout = with_start_columns(self)
        newest = self.newest()
        if newest is not None:
            self.model.load(newest)
        self.send("start", self.model.steps_done, {})
        if newest is None and self.stage.start_export is not None:
            self.export(self.stage.start_export, self.model.full_state())
        sums: dict[str, float] = {}
        for step in range(self.model.steps_done, self.job.steps):
            try:
                metrics = self.learn(step)
            except DivergedError:  # on every rank alike
                self.commit()
                raise
            self.commit()  # of the step before: the disk has had a step's time
            done = step + 1
            if done % self.config.eval_every == 0 or done == self.job.steps:
                sums = self.evaluate()
                metrics |= self.stage.heldout_metrics(sums)
            self.send("step", done, metrics)
            if done % self.config.checkpoint_every == 0 and done < self.job.steps:
                self.save(done)
        self.export("model", self.stage.finish(self.model.full_state(), sums))

    def learn(self, step: int) -> dict[str, float]:
        """One optimiser step. Its rows depend on seed and step, its loss on all of them: ranks only share the work.

        Raises DivergedError, with the training rows concerned, where loss or gradient is not finite.
        """
        began = time.perf_counter()
        rows = rows_of_step(step, self.config.batch_size, len(self.sizes), self.config.seed)
        plan = self.plans([self.sizes[row] for row in rows])
        micro_batches = [
            self.stage.batch(self.train, [rows[index] for index in micro]).to(device())
            for micro in plan[self.model.rank]
        ]
        terms = sum(self.weights[row] for row in rows)

        def loss(outputs: Tensor, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
            figures = {name: figure / terms for name, figure in self.stage.figures(outputs.detach(), batch).items()}
            figures["computed"] = torch.tensor(batch.input_ids.numel())
            return self.stage.loss(outputs, batch) * (self.model.world_size / terms), figures

        try:
            figures = self.model.update(micro_batches, self.stage.run, loss)
        except NotFiniteError as error:
            guilty = [rows[index] for index in rows_at(plan, error.micro_batches)]
            raise DivergedError(self.config.recipe_key, str(error), self.train.take(guilty)) from error
        computed = figures.pop("computed")
        tokens = sum(self.sizes[row] for row in rows)
        seconds = time.perf_counter() - began
        return {
            **figures,
            "epoch": (step + 1) * self.config.batch_size / len(self.sizes),
            "tokens": tokens,
            "density": tokens / computed,  # share of what was computed that is not padding
            "tokens_per_second": tokens / seconds,
            "seconds": seconds,
        }

    def evaluate(self) -> dict[str, float]:
        """The stage's figures summed over all held-out rows and ranks."""
        sums: dict[str, Tensor] = {}
        for micro in self.heldout_plan:
            batch = self.stage.batch(self.heldout, micro).to(device())
            figures = self.stage.heldout_sums(self.stage.run(self.model.forward, batch), batch)
            for name, figure in figures.items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + figure.detach().double().cpu()
        return self.model.sum_over_ranks(sums)

    def plan(self, sizes: list[int]) -> list[list[int]]:
        """This rank's micro-batches of rows that cost `sizes` tokens."""
        return self.plans(sizes)[self.model.rank]

    def plans(self, sizes: list[int]) -> Plan:
        """Every rank's."""
        return balanced_plan(sizes, self.model.world_size, self.config.micro_batch_tokens)

    def newest(self) -> Path | None:
        """The newest good checkpoint: rank 0 reads them, and all go on from the same."""
        found = [self.checkpoints.latest() if self.model.rank == 0 else None]
        torch.distributed.broadcast_object_list(found)
        return found[0][0] if found[0] else None

    def save(self, done: int) -> None:
        """Every rank copies its shard and begins to write it aside; `commit` makes them the checkpoint."""
        if self.model.rank == 0:
            self.checkpoints.begin(done)
        torch.distributed.barrier()
        self.model.save(self.checkpoints.aside(done))
        self.saving = done

    def commit(self) -> None:
        """Waits for the shards that are being written, if any; then one rename makes them the checkpoint."""
        if self.saving is None:
            return
        done, self.saving = self.saving, None
        shards: list[dict[str, str]] = [{}] * self.model.world_size
        torch.distributed.all_gather_object(shards, self.model.saved(self.checkpoints.aside(done)))
        if self.model.rank == 0:
            self.checkpoints.commit(done, {"steps": done}, {name: of for shard in shards for name, of in shard.items()})

    def export(self, name: str, weights: dict[str, Tensor]) -> None:
        """Writes rank 0's `weights` to the run's folder `name` in Hugging Face format."""
        if self.model.rank == 0:
            export_model(
                self.job.folder / name,
                self.stage.tokenizer,
                lambda aside: save_pretrained(self.model.model, weights, aside),
            )
        torch.distributed.barrier()
