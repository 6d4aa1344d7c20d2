"""The recovery policy for dead or hung processes of roles.

                  ┌─────────────── only stateless roles: the same action again ◄──────────────────────┐
                  ▼                                                                                   │
    the step's next action ──RoleDied──► who is lost? ──► within limits ──► replaced, and only they ──┤
                  ▲                                          │                                        │
                  │                                          └ RunError: the run ends with the reason │
                  └── newest checkpoint, then the journal ◄── a learner, or an action that is not recoverable

A stateless role's process can be started again in the middle of a step: reference, reward and reward function never change,
and an engine is sent the policy's weights. The state of policy and critic is in the checkpoint and the journal: both return to
the checkpoint, also the one that lived, and are updated again from the journal, without generating.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, Protocol, TypeVar

from actors.groups.team import LEARNERS, Team
from cluster.liveness.crash_log import crash_summary
from cluster.waiting import RoleDied
from configs.errors import RunError
from trainers.runs.stopping import StopRequests

T = TypeVar("T")
Argument = TypeVar("Argument")


class LearnersLost(Exception):
    """The learners' state is not that of the step any more."""


class _Loss(NamedTuple):
    at: float  # time.monotonic()
    step: int


class Recovery:
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
        """Calls `run`, which begins with the newest checkpoint, until it returns: again whenever learners were lost."""
        while True:
            try:
                return run()
            except RoleDied as error:
                self._replace(error)
            except LearnersLost:
                pass
            print(f"ppo: step {self.step + 1}: back to the newest checkpoint, and on from the journal", flush=True)

    def attempt(self, action: Callable[[bool], T]) -> T:
        """Returns what `action(again)` returns, which changes no learner; it is repeated after stateless roles were lost.

        Raises LearnersLost where a learner is lost, RunError where a role is lost too often.
        """
        again = False
        while True:
            try:
                return action(again)
            except RoleDied as error:
                if self._replace(error) & {*LEARNERS}:
                    raise LearnersLost from error
                again = True

    def _replace(self, error: RoleDied) -> set[str]:
        """Replaces who is lost, and who is lost meanwhile; returns the roles that were restarted, which may be more.

        No request to stop comes in between.
        """
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
                f"{crash_summary(self._team.watch.last_of(role, ranks))}"
            ) from error
        print(
            f"ppo: step {self.step + 1}: {error}; {which} starts again "
            f"(failure {len(losses) + 1} of at most {self._max_failures} in {self._window_s:.0f} s)",
            flush=True,
        )


class Recovering(Protocol):
    """What has recoverable methods."""

    recovery: Recovery


def recoverable(
    method: Callable[[Any, Argument, bool], T],
) -> Callable[[Any, Argument], T]:
    """A method `(self, argument, again)`, which changes no learner, as `(self, argument)`: `self.recovery` attempts it.

    `again` is whether a role that it may need was replaced since its last attempt: then an engine has the weights of the
    start, and results under way are lost.
    """

    @wraps(method)
    def attempted(self: Recovering, argument: Argument) -> T:
        return self.recovery.attempt(lambda again: method(self, argument, again))

    return attempted
