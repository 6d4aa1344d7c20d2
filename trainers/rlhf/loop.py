"""The loop of RLHF: generate, score, compute advantages, update, publish, checkpoint.

Roles run as Ray actors (see actors/groups/role_groups.py); the algorithm is this loop, which runs in the driver. The
weights version is the number of completed steps: version t (with `rollout.ahead` an older one) generates the responses
of step t, and the update of step t produces version t + 1.
"""

from __future__ import annotations

from contextlib import closing

import pyarrow as pa

from actors.groups.group import joined
from actors.table import require_schema
from actors.weight_sync.publisher import Published
from trainers.rlhf.advantages import with_advantages
from trainers.rlhf.losses import losses
from trainers.rlhf.metrics import step_metrics
from trainers.rlhf.parts import RunParts
from trainers.rlhf.recovery import recoverable
from trainers.rlhf.rollouts import Generated
from trainers.rlhf.samples import write_samples
from trainers.runs.collapse import keeping_rows, refuse_collapse


class Loop(RunParts):
    """PPO (Schulman et al. 2017) or another of trainers/rlhf/algorithms.py, with a KL penalty (Ouyang et al. 2022)."""

    def train(self) -> None:
        """Trains from the newest checkpoint to the end and exports the policy.

        Raises:
            Stopped: a stop was requested; unless no step was completed, a checkpoint has been saved if possible.
            CollapseError: a metric is not finite or violates a limit in `stop`.
        """
        steps, first = self.config.steps, self.checkpoints.restore()
        self.run.rewind(first)
        self.recovery.step = first
        with closing(self.rollouts), self.run.progress(steps, first, show=("reward", "kl_to_reference")) as progress:
            self.publish(first)
            for step in range(first, steps):
                self.recovery.step = step
                metrics = self.step(step)
                self.run.log(step + 1, metrics)
                progress.update(step + 1, metrics)
                refuse_collapse(self.config.stop, step + 1, metrics)
        with self.phases(steps)("export"):
            self.finish()

    def step(self, step: int) -> dict[str, float]:
        """Runs step `step`, counted from 0, and returns its metrics."""
        phase, kl_coef = self.phases(step), self.kl.coef
        with self.checkpoints.saved_when_stopped(step), self.stop.may_interrupt():
            with phase("generate"):
                generated = self.generate(step)
            with phase("score"):
                table = self.score(generated)
        with phase("update"), keeping_rows(self.run.path):
            table = with_advantages(table, self.config, self.shaper, kl_coef)
            require_schema(table, self.schemas.trainable, "trainable rows")
            updates = self.learners.update(table, losses(self.config, step, kl_coef), self.config.algorithm.epochs)
        with phase("wait"):
            self.rollouts.settle()
        with phase("publish"):
            published = self.publish(step + 1)
        metrics = step_metrics(table, updates, step + 1, published, kl_coef, self.rollouts.staleness(step, table))
        self.kl.observe(metrics.get("kl_to_reference", 0.0), len(table))
        if self.evaluator.due(step + 1):
            with phase("evaluate"):
                metrics |= self.evaluate(step + 1)
        with phase("checkpoint"):
            self.checkpoint(step, table)
        return metrics | phase.metrics(metrics["tokens"])

    @recoverable
    def generate(self, step: int, again: bool) -> Generated:
        """Returns the responses of `step`; they are in the journal by then."""
        if again:
            self.rollouts.drop()
            self.publish(step)
        return self.rollouts.take(step)

    @recoverable
    def score(self, generated: Generated, again: bool) -> pa.Table:
        """Returns the responses with every column that an update needs, except those that the driver adds."""
        learners = self.learners.submit_columns(generated.table)  # they compute while the frozen roles score
        table = self.rollouts.scoring(generated, again).join(generated.table)
        return require_schema(joined(table, learners), self.schemas.scored, "scored responses")

    @recoverable
    def publish(self, version: int, again: bool) -> Published | None:
        """Sends weights version `version` to the engines, and starts generating with it.

        Returns None, without publishing, if the journal has all responses that `version` would generate; the final
        version is always published.
        """
        if again:
            self.rollouts.drop()
        if not self.rollouts.needs(version) and version < self.config.steps:
            return None
        published = self.publisher.publish(version)
        self.rollouts.start(version)
        return published

    @recoverable
    def evaluate(self, step: int, again: bool) -> dict[str, float]:
        """Returns the metrics of the evaluation tasks after `step` steps."""
        return self.evaluator.metrics(step, self.export)

    def checkpoint(self, step: int, table: pa.Table) -> None:
        """Records the rewards and samples of `step`, commits the pending checkpoint, and starts a new one if due."""
        self.journal.record_rewards(step, table)
        if step % self.config.samples_every == 0 or step + 1 == self.config.steps:
            write_samples(self.run.path / "samples", step + 1, self.prompts.samples(table), table)
        self.checkpoints.commit()  # begun at an earlier step, so the disk has had time to write it
        if (step + 1) % self.config.checkpoint_every == 0 and step + 1 < self.config.steps:
            self.checkpoints.begin(step + 1)
