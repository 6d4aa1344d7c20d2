"""What becomes of a run when processes of its roles die or hang. All of it, in one sitting:

                  ┌──────────────── only roles that keep nothing: the same work again ◄────────────────┐
                  ▼                                                                                    │
    the step's next work ──RoleDied──► who is lost? ──► not too often ──► replaced, and only they ─────┤
                  ▲                                          │                                         │
                  │                                          └ RunError: the run ends, saying why      │
                  └── newest checkpoint, then the journal ◄── a learner, or work not to be done twice ─┘

A role that keeps nothing is one whose process can be started anew in the middle of a step: reference, reward and judge never
change, an engine gets the policy's weights. What policy and critic keep is in the checkpoint and the journal: both go back to
the checkpoint, also the one that lived, and learn again what the journal has, without generating.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from actors.groups.team import LEARNERS, Team
from cluster.liveness.crash_log import last_words
from cluster.waiting import RoleDied
from configs.errors import RunError
from trainers.runs.stopping import StopRequests

T = TypeVar("T")


class LearnersLost(Exception):
    """The learners' state is not that of the step any more."""


class _Loss(NamedTuple):
    at: float  # time.monotonic()
    step: int


class Supervisor:
    """Replaces lost processes of `team`.

    Args:
        stop: requests to end the run; they wait until replacing is done.
        max_failures: how often processes of one role are replaced within `window_s` seconds, or within one step.
    """

    def __init__(self, team: Team, stop: StopRequests, max_failures: int, window_s: float) -> None:
        self._team, self._stop, self._max_failures, self._window_s = team, stop, max_failures, window_s
        self._losses: dict[str, list[_Loss]] = defaultdict(list)
        self.step = 0
        """The step that is being made, from 0."""

    def finish(self, run: Callable[[], None]) -> None:
        """Calls `run` until it returns: it begins with the newest checkpoint, and again so after learners were lost."""
        while True:
            try:
                return run()
            except RoleDied as error:
                self._replace(error)
            except LearnersLost:
                pass
            print(f"ppo: step {self.step + 1}: back to the newest checkpoint, and on from the journal", flush=True)

    def keep_at(self, work: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """What `work` returns, which changes no learner. Where lost roles keep nothing, then what `again` does.

        Raises LearnersLost where they keep something, RunError where one is lost too often.
        """
        while True:
            try:
                return work()
            except RoleDied as error:
                if self._replace(error) & {*LEARNERS}:
                    raise LearnersLost from error
                work = again or work

    def _replace(self, error: RoleDied) -> set[str]:
        """Replaces who is lost, and who is lost meanwhile; returns the roles that were restarted, which may be more. No request to stop comes in between."""
        with self._stop.held():
            return self._replace_all(error)

    def _replace_all(self, error: RoleDied) -> set[str]:
        replaced: set[str] = set()
        while True:
            lost = self._team.lost(error)
            for role, ranks in lost.items():
                self._count(role, ranks, error)
            starting = self._team.together(lost)
            replaced |= starting.keys()
            try:
                self._team.replace(starting)
            except RoleDied as later:
                error = later
            else:
                return replaced

    def _count(self, role: str, ranks: list[int], error: RoleDied) -> None:
        now = time.monotonic()
        losses = [loss for loss in self._losses[role] if loss.step == self.step or now - loss.at < self._window_s]
        self._losses[role] = [*losses, _Loss(now, self.step)]
        which = f"{role} (rank {', '.join(map(str, ranks))})"
        if len(losses) >= self._max_failures:
            raise RunError(
                f"step {self.step + 1}: {which} was lost {len(losses) + 1} times within {self._window_s:.0f} s or one "
                f"step, max_failures is {self._max_failures}; at last: {error}; "
                f"{last_words(self._team.watch.last_of(role, ranks))}"
            ) from error
        print(
            f"ppo: step {self.step + 1}: {error}; {which} starts again "
            f"(failure {len(losses) + 1} of at most {self._max_failures} in {self._window_s:.0f} s)",
            flush=True,
        )
