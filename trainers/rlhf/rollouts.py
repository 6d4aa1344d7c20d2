"""The answers that each step learns from: generated, as far ahead as is allowed, or recalled from the journal.

Step t is answered by weights version t - ahead (at least 0), neither newer nor older, so a run is what it is at any speed:
a publish waits for the answers asked for before it, while generating overlaps with scoring and learning. With
`rollout.in_flight` it does not wait, and newer weights finish what older ones began: none older than t - ahead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from actors.groups.answers import Answers
from actors.groups.scoring import Scoring
from actors.groups.team import Team
from actors.modeling.rows import flat, lengths
from configs.errors import RunError
from trainers.config.rlhf import PPOConfig
from trainers.rlhf.journal import Journal
from trainers.rlhf.prompts import PromptStream
from trainers.rlhf.rewards import add_reward

REWARDING = ("reward", "judge")


class Answered(NamedTuple):
    """The answered rows of a step, which are in the journal."""

    table: pa.Table
    scoring: Scoring | None = None  # by whom they were scored as they came in


class Rollouts:
    """Asks for answers, and has each step's in the journal before anyone learns from them."""

    def __init__(self, config: PPOConfig, team: Team, prompts: PromptStream, journal: Journal) -> None:
        self._config, self._team, self._prompts, self._journal = config, team, prompts, journal
        self._in_flight = config.rollout.in_flight != "none"
        self._asked: dict[int, tuple[int, Answers]] = {}  # with the version that was asked
        self._finished: dict[int, Answered] = {}

    def version(self, step: int) -> int:
        """The weights version that answers `step`, or the oldest that may."""
        return max(0, step - self._config.rollout.ahead)

    def needs(self, version: int) -> list[int]:
        """The steps that `version` is to answer, or may help to, of which the journal has no answers yet."""
        return [
            step
            for step in range(version, min(version + self._config.rollout.ahead + 1, self._config.steps))
            if (self._in_flight or self.version(step) == version) and not self._journal.path(step).exists()
        ]

    def start(self, version: int) -> None:
        """Has everything generated that needs `version`, just published, and that nobody was asked for."""
        for step in self.needs(version):
            if step not in self._asked:
                self._asked[step] = version, self._ask(self._batch(step), version)

    def drop(self) -> None:
        """Forgets all answers that are not there yet, since some of them will not come: `start` asks for them again."""
        for _, answers in self._asked.values():
            answers.drop()
        self._asked.clear()

    def close(self) -> None:
        """Nobody waits for anything any more."""
        self.drop()

    def take(self, step: int) -> Answered:
        """The answered rows of `step`. Raises RunError if they are lost and the weights that made them gone."""
        if step in self._asked:
            self._finish(step)
        if step in self._finished:
            return self._finished.pop(step)
        table = self._journal.recall(step, self.version(step), newest=step if self._in_flight else None)
        if table is None:
            raise RunError(
                f"{self._journal.path(step)} is missing, and the weights that answered step {step} are gone: "
                "delete the run's newest checkpoint to go on from an older one"
            )
        return Answered(table)

    def settle(self) -> None:
        """Waits for all that must be answered before weights change: with them gone, only the journal has it."""
        for step in [] if self._in_flight else sorted(self._asked):
            self._finish(step)

    def staleness(self, step: int, table: pa.Table) -> np.ndarray:
        """How many versions older than the policy of `step` the weights behind every token were: (tokens,)."""
        if "versions" in table.column_names:
            return step - flat(table, "versions")
        return np.full(lengths(table, "response").sum(), step - self.version(step))

    def _batch(self, step: int, attempt: int = 0) -> pa.Table:
        """Every step has as many batches of prompts to itself as it may ask for."""
        return self._prompts.batch(step * (1 + self._config.algorithm.dynamic_sampling) + attempt)

    def _ask(self, batch: pa.Table, version: int) -> Answers:
        if self._config.algorithm.dynamic_sampling:  # only the answers that are kept are worth a reference
            return self._team.start_generating(batch, version, self._prompts.samples, REWARDING)
        return self._team.start_generating(batch, version, self._prompts.samples)

    def _finish(self, step: int) -> None:
        version, answers = self._asked[step]
        if self._config.algorithm.dynamic_sampling:
            answered = Answered(self._dynamically_sampled(step, answers))
        else:
            answered = Answered(answers.join(), answers.scoring)
        self._finished[step] = answered._replace(table=self._journal.record(step, version, answered.table))
        del self._asked[step]

    def _dynamically_sampled(self, step: int, answers: Answers) -> pa.Table:
        """Groups whose answers differ in reward, from further batches if need be (DAPO, Yu et al. 2025, section 3.2).

        If there are too few in all, the step is filled up with groups that teach nothing.
        """
        wanted, kept, rest = self._config.rows_per_step, [], []
        for attempt in range(1 + self._config.algorithm.dynamic_sampling):
            if attempt:
                answers = self._ask(self._batch(step, attempt), self.version(step))
            table = answers.scoring.join(answers.join())
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
