"""The training loop of supervised training, which every Ray Train worker runs as one rank."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from actors.distributed.devices import device, peak_bytes
from actors.distributed.host_group import open_host_group
from actors.groups.batching import Plan, balanced_plan, rows_at
from actors.modeling.models import save_pretrained
from actors.modeling.packed import PackedBatch
from actors.zero.checkpoint import CheckpointStore
from actors.zero.diverged import DivergedError, NotFiniteError
from actors.zero.lora import add_lora
from actors.zero.model import ZeroModel
from data.tables import column_values
from trainers.runs.evaluation import Evaluator
from trainers.runs.export import export_model
from trainers.runs.utilization import Utilization
from trainers.supervised.best import Best, write_evaluation
from trainers.supervised.reference_logprobs import with_start_columns
from trainers.supervised.stage import Evaluation, Job

Send = Callable[[str, int, dict[str, Any]], None]
"""Sends (kind, completed steps, metrics) to the driver.

Kinds: `start`, `step`, `stopped`, and `diverged`, with its `error`.
"""

WaitLogged = Callable[[int], None]
"""Waits until the driver has logged a step that was sent."""

StopRequested = Callable[[], bool]
"""Returns whether the driver was asked to stop the run; does not wait."""


class Rank:
    """Trains `job.stage` from its newest checkpoint, or from the start, to the end. All ranks run in lockstep.

    Args:
        job: the stage, the run's folder, and the steps and order of training.
        train: the encoded training rows; see `Examples`.
        heldout: the encoded held-out rows.
        send: sends a message to the driver; used on the first rank only.
        wait_logged: waits until the driver has logged a step.
        stop_requested: whether to end after the current step; used on the first rank only.
    """

    def __init__(
        self, job: Job, train: pa.Table, heldout: pa.Table, send: Send, wait_logged: WaitLogged = lambda _: None,
        stop_requested: StopRequested = lambda: False,
    ) -> None:  # fmt: skip
        self.job, self.train, self.heldout = job, train, heldout
        self.stage, self.config = job.stage, job.stage.config
        self.host = open_host_group(self.config.cluster.host_timeout_s)
        module = self.stage.module()
        if self.config.lora is not None:
            add_lora(module.model, self.config.lora, self.config.seed)
        self.model = ZeroModel(module, self.config.zero, self.config.optimizer, job.steps)
        self.utilization = Utilization(self.model, module, self.config)
        self.checkpoints = CheckpointStore(job.folder / "checkpoints", self.config.keep_checkpoints)
        self.saving: int | None = None
        """The step whose checkpoint is being written, if any."""
        self.best = Best(job.folder)
        timeout_s = self.config.cluster.collective_timeout_s
        self.evaluator = Evaluator(self.config.evaluation, job.folder, job.steps, timeout_s)
        self.send: Send = send if self.model.rank == 0 else lambda *_: None
        self.wait_logged, self.stop_requested = wait_logged, stop_requested
        self.sizes: list[int] = column_values(train, "size")
        self.weights: list[int] = column_values(train, "weight")
        self.heldout_plan = self.plan(column_values(heldout, "size"))

    def run(self) -> None:
        """Trains to the end and exports the model, or ends with a checkpoint after a stop request.

        Raises:
            DivergedError: a loss or gradient is not finite; raised on every rank.
        """
        if self.stage.start_columns:
            self.train, self.heldout = with_start_columns(self)
        newest = self.newest()
        if newest is not None:
            folder, state = newest
            self.model.load(folder, state.get("ranks"))
        self.send("start", self.model.steps_done, {})
        if newest is None and self.stage.start_export is not None:
            self.export(self.stage.start_export)
        if newest is None and self.config.eval_at_start:
            self.send("step", 0, self.evaluate(0).metrics)
        evaluation: Evaluation | None = None
        for step in range(self.model.steps_done, self.job.steps):
            try:
                metrics = self.train_step(step)
            except DivergedError:  # every rank raises it, so all can commit
                self.commit()
                raise
            self.commit()  # begun after the previous step, so the disk has had one step's time to write it
            done = step + 1
            if done % self.config.eval_every == 0 or done == self.job.steps:
                evaluation = self.evaluate(done)
                metrics |= evaluation.metrics
                self.keep_if_best(evaluation)
            if self.evaluator.due(done):
                metrics |= self.ask_tasks(done)
            self.send("step", done, metrics)
            if done == self.job.steps:
                break
            stopping = self.host.of_first_rank(self.stop_requested(), f"stop requests after step {done}")
            if stopping or done % self.config.checkpoint_every == 0:
                self.save(done)
            if stopping:
                self.commit()
                self.send("stopped", done, {})
                return
        if self.config.export == "best":
            self.copy_best()
        else:
            self.export("model", evaluation)

    def train_step(self, step: int) -> dict[str, float]:
        """Runs one optimizer step and returns its metrics.

        The rows depend only on the seed and the step, and the loss is computed over all of them, so neither depends on
        the number of ranks.

        Raises:
            DivergedError: the loss or gradient is not finite; the error contains the offending training rows.
        """
        began = time.perf_counter()
        self.seed_dropout(step)
        rows = self.job.order.of_step(step, self.config.batch_size)
        plan = self.plans([self.sizes[row] for row in rows])
        micro_batches = [
            self.stage.batch(self.train, [rows[index] for index in micro]).to(device())
            for micro in plan[self.model.rank]
        ]
        terms = sum(self.weights[row] for row in rows)

        def loss(outputs: Tensor, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
            metrics = {name: figure / terms for name, figure in self.stage.metrics(outputs.detach(), batch).items()}
            metrics["computed"] = torch.tensor(batch.input_ids.numel())
            metrics["flops"] = torch.tensor(self.utilization.flops(batch), dtype=torch.float64)
            return self.stage.loss(outputs, batch) * (self.model.world_size / terms), metrics

        try:
            metrics = self.model.update(micro_batches, self.stage.run, loss)
        except NotFiniteError as error:
            offending = [rows[index] for index in rows_at(plan, error.micro_batches)]
            raise DivergedError(self.config.recipe_key, str(error), self.train.take(offending)) from error
        computed, flops = metrics.pop("computed"), metrics.pop("flops")
        tokens = sum(self.sizes[row] for row in rows)
        seconds = time.perf_counter() - began
        return {
            **metrics,
            "epoch": (step + 1) * self.config.batch_size / len(self.sizes),
            "tokens": tokens,
            "density": tokens / computed,  # share of the computed tokens that is not padding
            "tokens_per_second": tokens / seconds,
            **self.utilization.metrics(flops, seconds),
            "peak_memory_bytes": self.model.largest_over_ranks(peak_bytes()),
            "seconds": seconds,
        }

    def seed_dropout(self, step: int) -> None:
        """Seeds dropout from seed, step, and rank, so that a resumed run uses the same dropout masks."""
        words = np.random.SeedSequence((self.config.seed, step, self.model.rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0]))

    def evaluate(self, done: int) -> Evaluation:
        """Evaluates the weights after `done` steps on all held-out rows, divided among the ranks."""
        sums: dict[str, Tensor] = {}
        names = self.stage.heldout_columns
        found = torch.zeros(self.heldout.num_rows, len(names), device=device())
        for micro in self.heldout_plan:
            batch = self.stage.batch(self.heldout, micro).to(device())
            outputs = self.stage.run(self.model.forward, batch)
            for name, figure in self.stage.heldout_sums(outputs, batch).items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + figure.detach().double().cpu()
            if names:
                found[micro] = outputs
        if names:
            torch.distributed.all_reduce(found)  # sums: each row was computed by one rank and is 0 on the others
        rows = self.heldout
        for name, column in zip(names, found.cpu().T, strict=True):
            rows = rows.append_column(name, pa.array(column.numpy()))
        return Evaluation(
            done, self.stage.heldout_metrics(self.model.sum_over_ranks(sums), rows), self.stage.report(rows)
        )

    def keep_if_best(self, evaluation: Evaluation) -> None:
        """Exports the weights to best/ if `export` requires it and their held-out loss is the lowest so far."""
        if self.config.export == "last":
            return
        beaten = self.best.is_beaten_by(evaluation.metrics["heldout_loss"])
        if self.host.of_first_rank(beaten, "reading best/"):
            folder = self.best.of_step(evaluation.step)
            self.export(str(folder.relative_to(self.job.folder)), evaluation)
            if self.model.rank == 0:
                self.best.keep_only(evaluation.step)

    def ask_tasks(self, done: int) -> dict[str, float]:
        """Runs the tasks of `evaluation` on the weights after `done` steps.

        Rank 0 runs the tasks and returns their metrics; the other ranks wait for it and return no metrics.
        """

        def export(folder: Path) -> None:
            self.export(str(folder.relative_to(self.job.folder)))

        metrics: dict[str, float] = {}
        if self.model.rank == 0:
            metrics = self.evaluator.metrics(done, export)
        else:
            export(self.evaluator.folder(done))
        self.host.barrier(f"evaluating tasks after step {done}")
        return metrics

    def copy_best(self) -> None:
        """Copies the best export to the run's folder `model`."""
        if self.model.rank == 0:
            best = self.best.path()
            export_model(
                self.job.folder / "model",
                self.stage.tokenizer,
                lambda aside: shutil.copytree(best, aside, dirs_exist_ok=True),
            )
        self.host.barrier("copying the best model")

    def plan(self, sizes: list[int]) -> list[list[int]]:
        """Returns this rank's micro-batches, as lists of indices into `sizes`, the numbers of tokens of the rows."""
        return self.plans(sizes)[self.model.rank]

    def plans(self, sizes: list[int]) -> Plan:
        """Returns every rank's micro-batches; see `plan`."""
        return balanced_plan(sizes, self.model.world_size, self.config.micro_batch_tokens)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """Returns folder and state of the newest intact checkpoint, as found by rank 0; None if there is none."""
        found = self.checkpoints.latest() if self.model.rank == 0 else None
        return self.host.of_first_rank(found, "verifying the checkpoints")

    def save(self, done: int) -> None:
        """Copies this rank's shard and starts writing it to a temporary folder; `commit` makes it a checkpoint."""
        if self.model.rank == 0:
            self.checkpoints.begin(done)
        self.host.barrier("removing the files of interrupted checkpoints")
        self.model.save(self.checkpoints.aside(done))
        self.saving = done

    def commit(self) -> None:
        """Waits for the shards that are being written, if any, and commits them as a checkpoint with one rename."""
        if self.saving is None:
            return
        done, self.saving = self.saving, None
        mine = self.model.saved(self.checkpoints.aside(done))
        shards = self.host.of_every_rank(mine, f"writing the checkpoint of step {done}")
        if self.model.rank == 0:
            self.wait_logged(done)  # a run resumed from here does not send these steps again
            state = {"steps": done, "ranks": self.model.world_size}
            self.checkpoints.commit(done, state, {name: of for shard in shards for name, of in shard.items()})
        self.host.barrier(f"committing the checkpoint of step {done}")

    def export(self, name: str, evaluation: Evaluation | None = None) -> None:
        """Writes the weights to the run's folder `name` in Hugging Face format; all ranks must call it.

        With `evaluation`, `Stage.finish` postprocesses the weights first, and the evaluation is stored with them.
        """
        weights = self.model.full_state()
        settings: dict[str, Any] = {}
        if self.model.rank == 0:
            if evaluation is not None:
                weights, settings = self.stage.finish(weights, evaluation.metrics)

            def write(aside: Path) -> None:
                save_pretrained(self.model.model, weights, aside, settings)
                if evaluation is not None:
                    write_evaluation(aside, evaluation)

            export_model(self.job.folder / name, self.stage.tokenizer, write)
        self.host.barrier(f"writing {name}")
