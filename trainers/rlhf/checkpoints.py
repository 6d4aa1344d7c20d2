"""Checkpoints of a run of RLHF: policy and critic, the driver's own state, and the journal since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from actors.groups.team import Team
from actors.zero.checkpoint import CheckpointStore
from cluster.waiting import RoleDied
from trainers.config.rlhf import PPOConfig
from trainers.rlhf.journal import Journal
from trainers.runs.stopping import Stopped


class Stateful(Protocol):
    """A part of the driver that changes from step to step. Its state is JSON."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` returned."""
        ...


class Checkpoints:
    """Saves the learners while the run goes on, and restores the newest checkpoint that is whole.

    Args:
        driver: the parts of the driver whose state is saved as well, by name.
    """

    def __init__(
        self, config: PPOConfig, run: Path, team: Team, journal: Journal, driver: Mapping[str, Stateful]
    ) -> None:
        self._store = CheckpointStore(run / "checkpoints", config.keep_checkpoints)
        self._team, self._journal, self._driver = team, journal, driver
        # In flight, later weights may answer any step, and may have learned from all steps before it.
        self._ahead = config.rollout.ahead if config.rollout.in_flight == "none" else 0
        self._steps = config.steps
        self._writing: tuple[int, dict[str, Any]] | None = None

    def begin(self, step: int) -> None:
        """Copies policy, critic and the driver's state as they are after `step` steps, and begins to write them."""
        self._begin(step, self._state())

    def commit(self) -> None:
        """Makes what is being written, if anything, a checkpoint; waits for the disk. Raises DiskError."""
        if self._writing is None:
            return
        (step, state), self._writing = self._writing, None
        self._store.commit(step, state, self._team.saved(self._store.aside(step)))

    @contextmanager
    def saved_when_stopped(self, step: int) -> Iterator[None]:
        """Work before the update of `step`, which Stopped may end: then the state from before it is saved."""
        state = self._state()
        try:
            yield
        except Stopped as stopped:
            try:
                self._save(step, state)
            except RoleDied as error:
                print(f"ppo: no checkpoint of step {step}: {error}; an older one and the journal serve", flush=True)
            print(f"ppo: stopped after step {step} ({stopped.reason}); the same command goes on", flush=True)
            raise

    def restore(self) -> int:
        """Loads the newest good checkpoint that the journal reaches from; returns its step.

        Without one it is step 0, with the weights of the start. Everything that is refused is printed.
        """
        step, state = 0, None
        for folder, found in self._store.good():
            # Answers that are ahead were made by weights before the checkpoint's: the journal must have them.
            if self._journal.reaches(range(found["step"], min(found["step"] + self._ahead, self._steps))):
                self._team.load(folder)
                step, state = found["step"], found
                break
            print(f"{folder}: not used, since the journal does not have the answers made ahead of it", flush=True)
        if state is None:
            self._team.begin_anew()
        else:
            for name, part in self._driver.items():
                part.restore(state[name])
        self._journal.truncate_at_gap(step, self._ahead)
        return step

    def _state(self) -> dict[str, Any]:
        return {name: part.state() for name, part in self._driver.items()}

    def _begin(self, step: int, state: dict[str, Any]) -> None:
        self.commit()
        self._team.save(self._store.begin(step))
        self._writing = step, {"step": step, **state}

    def _save(self, step: int, state: dict[str, Any]) -> None:
        """A checkpoint of policy and critic as they are after `step` steps, unless there is one. Waits for the disk."""
        self.commit()
        if step and step not in self._store.steps():
            self._begin(step, state)
            self.commit()
