"""The recovery policy for dead or hung processes of roles.

                  ┌──────────────── only stateless roles: repeat the action ◄─────────────────────────┐
                  ▼                                                                                   │
    next action of the step ──RoleDied──► which are lost? ──► within limits ──► replace only those ───┤
                  ▲                                          │                                        │
                  │                                          └ RunError: the run stops with the cause │
                  └── newest checkpoint, then the journal ◄── a learner, or an action that is not recoverable

The process of a stateless role can be restarted in the middle of a step: reference, reward model, and reward function
never change, and an engine receives the policy's weights again. The state of policy and critic is in the checkpoint and
the journal: both are restored from the checkpoint, even if only one was lost, and updated again from the journal
without generating.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, Protocol, TypeVar

from actors.groups.role_groups import LEARNERS, RoleGroups
from cluster.liveness.crash_log import crash_summary
from cluster.waiting import RoleDied
from configs.errors import RunError
from trainers.runs.stopping import StopRequests

logger = logging.getLogger(__name__)

T = TypeVar("T")
Argument = TypeVar("Argument")


class LearnersLost(Exception):
    """A learner was lost, so policy and critic no longer have the state of the current step."""


class _Loss(NamedTuple):
    at: float  # time.monotonic()
    step: int


class Recovery:
    """Replaces lost processes.

    Args:
        roles: the roles of the run.
        stop: requests to stop the run; they are deferred while processes are replaced.
        max_failures: how many times processes of one role may be lost within `window_s` seconds, or within one step.
        window_s: seconds after which a failure no longer counts toward `max_failures`.
    """

    def __init__(self, roles: RoleGroups, stop: StopRequests, max_failures: int, window_s: float) -> None:
        self._roles, self._stop, self._max_failures, self._window_s = roles, stop, max_failures, window_s
        self._losses: dict[str, list[_Loss]] = defaultdict(list)
        self.step = 0
        """The current step, counted from 0."""

    def finish(self, run: Callable[[], None]) -> None:
        """Calls `run`, which resumes from the newest checkpoint, until it returns; replaces lost processes in between.

        Raises:
            RunError: processes of a role were lost more often than `max_failures` allows.
        """
        while True:
            try:
                return run()
            except RoleDied as error:
                self._replace(error)
            except LearnersLost:
                pass
            logger.warning("step %d: restoring the newest checkpoint and continuing from the journal", self.step + 1)

    def attempt(self, action: Callable[[bool], T]) -> T:
        """Calls `action(again)` and returns its result; repeats it after stateless roles were lost and replaced.

        Args:
            action: the function to call, which must not change policy or critic. Its argument is False at the first
                attempt and True at every further attempt.

        Raises:
            LearnersLost: a learner was lost.
            RunError: processes of a role were lost more often than `max_failures` allows.
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
        """Replaces the lost processes, including those lost in the meantime. Stop requests are deferred until then.

        Returns all roles that were restarted, which may be more than were lost.
        """
        with self._stop.held():
            return self._replace_all(error)

    def _replace_all(self, error: RoleDied) -> set[str]:
        replaced: set[str] = set()
        while True:
            lost = self._roles.lost_ranks(error)
            for role, ranks in lost.items():
                self._count(role, ranks, error)
            starting = self._roles.to_restart(lost)
            replaced |= starting.keys()
            try:
                self._roles.replace(starting)
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
                f"step {self.step + 1}: {which} was lost {len(losses) + 1} times within {self._window_s:.0f} s "
                f"or one step, more than max_failures {self._max_failures}; last error: {error}; "
                f"{crash_summary(self._roles.watch.last_of(role, ranks))}"
            ) from error
        logger.warning(
            "step %d: %s; restarting %s (failure %d of at most %d in %.0f s)",
            *(self.step + 1, error, which),
            *(len(losses) + 1, self._max_failures, self._window_s),
        )


class Recovering(Protocol):
    """An object with recoverable methods."""

    recovery: Recovery


def recoverable(
    method: Callable[[Any, Argument, bool], T],
) -> Callable[[Any, Argument], T]:
    """Turns a method `(self, argument, again)` into `(self, argument)`, which is repeated after stateless roles failed.

    `self.recovery` replaces the failed roles. The method must not change policy or critic. `again` is True if roles
    were replaced since its last attempt: a replaced engine has the starting weights, and pending results are lost.
    """

    @wraps(method)
    def attempted(self: Recovering, argument: Argument) -> T:
        return self.recovery.attempt(lambda again: method(self, argument, again))

    return attempted
