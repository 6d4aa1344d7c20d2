"""States of a run of RLHF that it can go on from: checkpoints of policy and critic, and the journal since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.groups.team import Team
from actors.zero.checkpoint import CheckpointStore
from trainers.config.rlhf import PPOConfig
from trainers.rlhf.journal import Journal


class Savepoints:
    """Saves the learners while the run goes on, and restores the newest state that is whole."""

    def __init__(self, config: PPOConfig, run: Path, team: Team, journal: Journal) -> None:
        self._store = CheckpointStore(run / "checkpoints", config.keep_checkpoints)
        self._team, self._journal = team, journal
        # In flight, later weights may answer any step, and may have learnt from all steps before it.
        self._ahead = config.rollout.ahead if config.rollout.in_flight == "none" else 0
        self._steps = config.steps
        self._writing: tuple[int, dict[str, Any]] | None = None

    def begin(self, step: int, state: dict[str, Any]) -> None:
        """Copies policy and critic as they are after `step` steps, and begins to write them with `state` (JSON)."""
        self.commit()
        self._team.save(self._store.begin(step))
        self._writing = step, {"step": step, **state}

    def commit(self) -> None:
        """Makes what is being written, if anything, a checkpoint; waits for the disk. Raises DiskError."""
        if self._writing is None:
            return
        (step, state), self._writing = self._writing, None
        self._store.commit(step, state, self._team.saved(self._store.aside(step)))

    def save(self, step: int, state: dict[str, Any]) -> None:
        """A checkpoint of policy and critic as they are after `step` steps, unless there is one. Waits for the disk."""
        self.commit()
        if step and step not in self._store.steps():
            self.begin(step, state)
            self.commit()

    def restore(self) -> tuple[int, dict[str, Any] | None]:
        """Loads the newest good checkpoint that the journal reaches from; its step and what was saved with it.

        Without one it is step 0, with the weights of the start. Everything that is refused is said.
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
        self._journal.mend(step, self._ahead)
        return step, state
