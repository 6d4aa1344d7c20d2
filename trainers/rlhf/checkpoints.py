"""Checkpoints of an RLHF run: policy and critic, the driver's own state, and the journal since."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from actors.groups.learners import Learners
from actors.zero.checkpoint import CheckpointStore
from cluster.waiting import RoleDied
from trainers.config.rlhf import PPOConfig
from trainers.rlhf.journal import Journal
from trainers.runs.stopping import Stopped

logger = logging.getLogger(__name__)


class Stateful(Protocol):
    """A part of the driver whose state changes from step to step and can be saved as JSON."""

    def state(self) -> dict[str, Any]:
        """Returns the state that a checkpoint saves."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores a state that `state` returned."""
        ...


class Checkpoints:
    """Saves policy and critic while the run continues, and restores the newest intact checkpoint.

    Args:
        config: the run's settings.
        run: the run's folder.
        learners: policy and critic.
        journal: the run's journal.
        driver: the parts of the driver whose state is also saved, by name.
    """

    def __init__(
        self, config: PPOConfig, run: Path, learners: Learners, journal: Journal, driver: Mapping[str, Stateful]
    ) -> None:
        self._store = CheckpointStore(run / "checkpoints", config.keep_checkpoints)
        self._learners, self._journal, self._driver = learners, journal, driver
        # With in-flight weight updates, a step's responses may come from any version up to the step's own, which
        # depends on all earlier steps. So a restore does not require responses generated ahead, and responses after a
        # gap cannot be kept.
        self._ahead = config.rollout.ahead if config.rollout.in_flight == "none" else 0
        self._steps = config.steps
        self._writing: tuple[int, dict[str, Any]] | None = None

    def begin(self, step: int) -> None:
        """Copies policy, critic, and the driver's state after `step` steps, and starts writing them."""
        self._begin(step, self._state())

    def commit(self) -> None:
        """Waits for the checkpoint that is being written, if any, and commits it.

        Raises:
            DiskError: the checkpoint cannot be written.
        """
        if self._writing is None:
            return
        (step, state), self._writing = self._writing, None
        self._store.commit(step, state, self._learners.saved(self._store.aside(step)))

    @contextmanager
    def saved_when_stopped(self, step: int) -> Iterator[None]:
        """Saves a checkpoint of the state before `step` if Stopped is raised inside the block, then raises it again.

        The block must end before the update of `step`.
        """
        state = self._state()
        try:
            yield
        except Stopped as stopped:
            try:
                self._save(step, state)
            except RoleDied as error:
                logger.warning(
                    "no checkpoint of step %d: %s; the run can resume from an older checkpoint and the journal",
                    step,
                    error,
                )
            logger.info("stopped after step %d (%s); run the same command to continue", step, stopped.reason)
            raise

    def restore(self) -> int:
        """Loads the newest intact checkpoint for which the journal has all responses generated ahead; returns its step.

        If there is no such checkpoint, resets policy and critic to their starting weights and returns 0. Logs every
        checkpoint that it rejects. Truncates the journal at its first gap after the step.
        """
        step, state = 0, None
        for folder, found in self._store.good():
            # Responses ahead of the checkpoint were generated with older weights, which no longer exist.
            if self._journal.reaches(range(found["step"], min(found["step"] + self._ahead, self._steps))):
                self._learners.load(folder)
                step, state = found["step"], found
                break
            logger.warning("%s: not used, because the journal lacks responses that were generated ahead of it", folder)
        if state is None:
            self._learners.reset()
        else:
            for name, part in self._driver.items():
                part.restore(state[name])
        self._journal.truncate_at_gap(step, self._ahead)
        logger.info("resuming from step %d of %d" if step else "starting at step %d of %d", step, self._steps)
        return step

    def _state(self) -> dict[str, Any]:
        return {name: part.state() for name, part in self._driver.items()}

    def _begin(self, step: int, state: dict[str, Any]) -> None:
        self.commit()
        self._learners.save(self._store.begin(step))
        self._writing = step, {"step": step, **state}

    def _save(self, step: int, state: dict[str, Any]) -> None:
        """Saves and commits a checkpoint after `step` steps, unless it exists or `step` is 0. Waits for the writes."""
        self.commit()
        if step and step not in self._store.steps():
            self._begin(step, state)
            self.commit()
