"""The responses of each step: generated up to `rollout.ahead` steps ahead, or read from the journal.

The responses of step t come from exactly weights version max(0, t - ahead), so a run's result does not depend on its
speed: a publish waits for the responses requested before it, while generation overlaps with scoring and updates. With
`rollout.in_flight` (in-flight weight updates), a publish does not wait, and responses begun with older weights are
finished with newer ones; no version older than t - ahead is used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from actors.groups.group import WorkerGroup
from actors.groups.responses import ResponseCollector
from actors.groups.scoring import FROZEN, REWARDING, Scorers, Scoring
from actors.modeling.rows import flat, lengths
from actors.roles.rollout import Rollout
from actors.table import require_schema
from configs.errors import RunError
from trainers.config.rlhf import PPOConfig
from trainers.rlhf.journal import Journal
from trainers.rlhf.prompts import PromptStream
from trainers.rlhf.rewards import add_reward
from trainers.rlhf.schemas import Schemas


class Generated(NamedTuple):
    """The rows of a step with their responses, which the journal has recorded."""

    table: pa.Table
    scoring: Scoring | None = None  # pending scores, computed while generating


class Rollouts:
    """Requests responses, and records those of a step in the journal before they are used for an update."""

    def __init__(
        self,
        config: PPOConfig,
        engines: WorkerGroup[Rollout],
        scorers: Scorers,
        prompts: PromptStream,
        journal: Journal,
    ) -> None:
        self._config, self._engines, self._scorers = config, engines, scorers
        self._prompts, self._journal = prompts, journal
        self._schemas = Schemas.of(config)
        self._in_flight = config.rollout.in_flight != "none"
        self._asked: dict[int, tuple[int, ResponseCollector]] = {}  # step -> weights version, pending responses
        self._finished: dict[int, Generated] = {}

    def version(self, step: int) -> int:
        """Returns the weights version that generates the responses of `step`.

        With in-flight weight updates, it is the oldest version that may generate them.
        """
        return max(0, step - self._config.rollout.ahead)

    def needs(self, version: int) -> list[int]:
        """Returns the steps missing from the journal whose responses weights `version` generates, at least in part."""
        return [
            step
            for step in range(version, min(version + self._config.rollout.ahead + 1, self._config.steps))
            if (self._in_flight or self.version(step) == version) and not self._journal.path(step).exists()
        ]

    def start(self, version: int) -> None:
        """Requests the responses that need `version`, which was just published, unless they are already pending."""
        for step in self.needs(version):
            if step not in self._asked:
                self._asked[step] = version, self._request(self._batch(step), version)

    def drop(self) -> None:
        """Drops all pending responses after some were lost with their engine; `start` requests them again."""
        for _, responses in self._asked.values():
            responses.drop()
        self._asked.clear()

    def close(self) -> None:
        """Drops all pending requests."""
        self.drop()

    def take(self, step: int) -> Generated:
        """Returns the rows of `step` with their responses; waits for them if they are pending.

        Raises:
            RunError: the responses are lost, and so are the weights that generated them.
        """
        if step in self._asked:
            self._finish(step)
        if step in self._finished:
            return self._checked(self._finished.pop(step))
        table = self._journal.recall(step, self.version(step), newest=step if self._in_flight else None)
        if table is None:
            raise RunError(
                f"{self._journal.path(step)} is missing, and the weights that generated step {step} no longer "
                "exist: delete the run's newest checkpoint to continue from an older one"
            )
        return self._checked(Generated(table))

    def scoring(self, generated: Generated, again: bool) -> Scoring:
        """Returns the frozen roles' scores of a step's responses; the scores may still be pending.

        Args:
            generated: the step's responses.
            again: whether scores that were submitted while generating are lost.
        """
        if generated.scoring is not None and not again:
            return generated.scoring
        rewarded = self._config.algorithm.dynamic_sampling > 0  # in this case, the journal already has the rewards
        return self._scorers.score(generated.table, ("reference",) if rewarded else FROZEN)

    def settle(self) -> None:
        """Waits for all pending responses that must be complete before the weights change.

        Once the engines have new weights, these responses cannot be generated again. With in-flight weight updates
        there are no such responses.
        """
        for step in [] if self._in_flight else sorted(self._asked):
            self._finish(step)

    def staleness(self, step: int, table: pa.Table) -> np.ndarray:
        """Returns the staleness of each of the N response tokens of `table`, (N,).

        It is the policy's version at `step` minus the version that generated the token.
        """
        if "versions" in table.column_names:
            return step - flat(table, "versions")
        return np.full(lengths(table, "response").sum(), step - self.version(step))

    def _batch(self, step: int, attempt: int = 0) -> pa.Table:
        """Returns the prompts of an attempt. Every step has 1 + `dynamic_sampling` separate batches."""
        batch = self._prompts.batch(step * (1 + self._config.algorithm.dynamic_sampling) + attempt)
        return require_schema(batch, self._schemas.prompts, "prompts")

    def _checked(self, generated: Generated) -> Generated:
        require_schema(generated.table, self._schemas.responses, "responses")
        return generated

    def _request(self, batch: pa.Table, version: int) -> ResponseCollector:
        # With dynamic sampling, only the responses that are kept need log-probabilities of the reference.
        roles = REWARDING if self._config.algorithm.dynamic_sampling else FROZEN
        return ResponseCollector(self._engines, batch, version, self._scorers.begin(len(batch), roles))

    def _finish(self, step: int) -> None:
        version, responses = self._asked[step]
        if self._config.algorithm.dynamic_sampling:
            generated = Generated(self._dynamically_sampled(step, responses))
        else:
            generated = Generated(responses.join(), responses.scoring)
        self._finished[step] = generated._replace(table=self._journal.record(step, version, generated.table))
        del self._asked[step]

    def _dynamically_sampled(self, step: int, responses: ResponseCollector) -> pa.Table:
        """Keeps groups whose responses differ in reward: dynamic sampling (DAPO, Yu et al. 2025, section 3.2).

        Generates up to `dynamic_sampling` additional batches until there are enough such groups. If there are still too
        few, fills the step with groups of equal rewards.
        """
        wanted, kept, rest = self._config.rows_per_step, [], []
        for attempt in range(1 + self._config.algorithm.dynamic_sampling):
            if attempt:
                responses = self._request(self._batch(step, attempt), self.version(step))
            table = responses.scoring.join(responses.join())
            differs = differing(add_reward(table, self._config.reward_weights))
            kept.append(table.filter(pa.array(differs)))
            rest.append(table.filter(pa.array(~differs)))
            if sum(map(len, kept)) >= wanted:
                break
        return pa.concat_tables([*kept, *rest])[:wanted].combine_chunks()


def differing(table: pa.Table) -> np.ndarray:
    """Returns, for each of the R rows, whether the responses of its group differ in reward, (R,) bool."""
    groups, rewards = table.column("group").to_numpy(), table.column("reward").to_numpy()
    differs = np.zeros(len(table), dtype=bool)
    for group in np.unique(groups):
        members = groups == group
        differs[members] = rewards[members].min() < rewards[members].max()
    return differs
