"""The answers that each step learns from: generated, as far ahead as is allowed, or recalled from the journal.

Step t is answered by weights version t - ahead (at least 0), neither newer nor older, so a run is what it is at any speed. On
the engines' queues a publish waits for the answers asked for before it; generating overlaps with scoring and learning.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from actors.group import ColumnsInFlight
from actors.team import Team
from configs.recipe import RunError
from trainers.journal import Journal
from trainers.prompts import PromptStream
from trainers.rewards import add_reward
from trainers.rlhf_config import PPOConfig


class Rollouts:
    """Asks for answers, and has each step's in the journal before anyone learns from them."""

    def __init__(self, config: PPOConfig, team: Team, prompts: PromptStream, journal: Journal) -> None:
        self._config, self._team, self._prompts, self._journal = config, team, prompts, journal
        self._asked: dict[int, tuple[pa.Table, ColumnsInFlight]] = {}

    def version(self, step: int) -> int:
        """The weights version that answers `step`."""
        return max(0, step - self._config.rollout.ahead)

    def start(self, version: int) -> None:
        """Has everything generated that `version`, just published, is to answer and the journal does not have."""
        for step in range(version, min(version + self._config.rollout.ahead + 1, self._config.steps)):
            if self.version(step) == version and not self._journal.path(step).exists():
                batch = self._batch(step)
                self._asked[step] = (batch, self._team.start_generating(batch, version))

    def take(self, step: int) -> pa.Table:
        """The answered rows of `step`."""
        if step in self._asked:
            return self._finish(step)
        table = self._journal.recall(step, self.version(step))
        if table is None:
            raise RunError(
                f"{self._journal.path(step)} is missing, and the weights that answered step {step} are gone: "
                "delete the run's newest checkpoint to go on from an older one"
            )
        return table

    def settle(self) -> None:
        """Waits for all that was asked for: with the weights that answered it gone, only the journal has it."""
        for step in sorted(self._asked):
            self._finish(step)

    def _batch(self, step: int, attempt: int = 0) -> pa.Table:
        """Every step has as many batches of prompts to itself as it may ask for."""
        return self._prompts.batch(step * (1 + self._config.algorithm.resample) + attempt)

    def _finish(self, step: int) -> pa.Table:
        batch, flying = self._asked.pop(step)
        table = flying.join(batch)
        if self._config.algorithm.resample:
            table = self._resampled(step, table)
        return self._journal.record(step, self.version(step), table)

    def _resampled(self, step: int, table: pa.Table) -> pa.Table:
        """Groups whose answers differ in reward, from further batches if need be (DAPO, Yu et al. 2025, section 3.2).

        If there are too few in all, the step is filled up with groups that teach nothing.
        """
        wanted, kept, rest = self._config.rows_per_step, [], []
        for attempt in range(1 + self._config.algorithm.resample):
            if attempt:
                batch = self._batch(step, attempt)
                table = self._team.start_generating(batch, self.version(step)).join(batch)
            table = self._team.reward(table, self._prompts.samples(table))
            differs = differing(add_reward(table, self._config.reward_weights))
            kept.append(table.filter(pa.array(differs)))
            rest.append(table.filter(pa.array(~differs)))
            if sum(map(len, kept)) >= wanted:
                break
        return pa.concat_tables([*kept, *rest])[:wanted].combine_chunks()


def differing(table: pa.Table) -> np.ndarray:
    """For each row, (R,) bool: whether the answers of its group have different rewards."""
    groups, rewards = table.column("group").to_numpy(), table.column("reward").to_numpy()
    differs = np.zeros(len(table), dtype=bool)
    for group in np.unique(groups):
        members = groups == group
        differs[members] = rewards[members].min() < rewards[members].max()
    return differs
