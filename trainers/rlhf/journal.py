"""The journal: every step's rollouts as one Parquet file, on disk before anyone learns from them.

It is a redo log. A checkpoint and the journal's later files give back any state without generating again.

    journal/step-00000003.parquet    prompts, answers, the engines' log-probabilities; see storage/checksummed.py for its checksum
    rewards/step-00000003.parquet    what they were worth, written when they have been scored; only people read it
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.table import reward_sources
from configs.errors import RunError
from data.tables import table_files
from storage.checksummed import read_or_put_aside, write_sealed
from storage.durable import sha256
from storage.paths import table_path
from trainers.config.rlhf import PPOConfig, RejectionConfig

_NAME = re.compile(r"step-(\d{8})\.parquet")
# Settings that change no answer and no weight: of the stage, what it is called, where it runs, what it keeps, when it
# stops; of any section in it, in what pieces and with how much memory things are computed.
_OF_THE_STAGE = {"name", "cluster", "colocate", "publish", "samples_every", "checkpoint_every", "keep_checkpoints"} | {
    "max_failures",
    "stop",
    "evaluation",
}
_OF_ANY_SECTION = {"placement", "micro_batch_tokens", "max_concurrent", "kv_cache_bytes", "gpu_memory_utilization"}


class Journal:
    """The journal of one run.

    Args:
        run: the run's folder.
        fingerprint: of the settings that the run has now, see `fingerprint`.
    """

    def __init__(self, run: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = run / "journal", fingerprint
        self._rewards = run / "rewards"

    def path(self, step: int) -> Path:
        """The file of `step`."""
        return step_path(self.folder, step)

    def steps(self) -> list[int]:
        """Steps that have a file, ascending."""
        return recorded_steps(self.folder)

    def recall(self, step: int, version: int, newest: int | None = None) -> pa.Table | None:
        """The rollouts of `step` as recorded, or None when there are none, or none intact, which is said.

        Raises RunError, naming the file, when they were made by other weights than `version`, or with `newest` by none from
        the one to the other, or with other settings: such a journal belongs to another course of the run.
        """
        path = self.path(step)
        read = read_or_put_aside(path, "its step is generated again")
        if read is None:
            return None
        table, facts = read
        if not version <= int(facts["weights_version"]) <= (version if newest is None else newest):
            raise RunError(
                f"{path}: rollouts of step {step} were made by weights version {facts['weights_version']}, but the run is "
                f"at version {version}; move the file away to generate them again"
            )
        if facts["fingerprint"] != self.fingerprint:
            raise RunError(
                f"{path}: made with other settings or prompts than the run has now; put prompts.train back as it was, "
                f"choose another run name, or move the file away to generate it again"
            )
        return table

    def record(self, step: int, version: int, table: pa.Table) -> pa.Table:
        """Writes the rollouts of `step`, made by weights `version`, and returns them. Raises DiskError."""
        write_sealed(self.path(step), table, {"weights_version": str(version), "fingerprint": self.fingerprint})
        return table

    def record_rewards(self, step: int, table: pa.Table) -> None:
        """Writes the rewards of `step`, row by row as in its journal. Not synced: learning again scores again."""
        names = [name for name in ("reward", *reward_sources(table)) if name in table.column_names]
        write_sealed(step_path(self._rewards, step), table.select(names), {"step": str(step)}, synced=False)

    def reaches(self, steps: range) -> bool:
        """Whether the rollouts of all `steps` are there and intact; one that is not is said."""
        return all(self._intact(step) for step in steps)

    def truncate_at_gap(self, first: int, ahead: int) -> None:
        """Ends the log where it has a gap at or after step `first`, the one that the run goes on with.

        What that step's new answers teach may be other than what its lost ones taught, so the answers of later weights
        go: those of steps more than `ahead` behind it.
        """
        steps = [step for step in self.steps() if step >= first]
        gap = next((step for step in range(first, steps[-1] + 1) if not self._intact(step)), None) if steps else None
        later = [step for step in steps if gap is not None and step > gap + ahead]
        for step in reversed(later):  # so that a crash meanwhile leaves the gap
            self.path(step).unlink()
        if later:
            print(f"{self.path(later[0])} and later: generated again, since step {gap} before them is", flush=True)

    def _intact(self, step: int) -> bool:
        return read_or_put_aside(self.path(step), "its step is generated again") is not None


def step_path(folder: Path, step: int) -> Path:
    """The file of `step` in `folder`."""
    return folder / f"step-{step:08d}.parquet"


def recorded_steps(folder: Path) -> list[int]:
    """Steps that have a file in `folder`, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(m[1]) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name)))


def fingerprint(config: PPOConfig | RejectionConfig) -> str:
    """What decides the answers of every step, as 64 digits: two runs of one fingerprint generate the same.

    A later step's weights come from nearly every setting: seed, models by name, rollout, algorithm, optimizers, rewards. So
    all count but those listed above; and prompts count by content, since a table can change under its name.
    """
    settings = _decisive(config.model_dump(mode="json", exclude=_OF_THE_STAGE))
    settings["prompts"]["train"] = [
        sha256(file) for path in config.prompts.train for file in table_files(table_path(path))
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _decisive(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {name: _decisive(value) for name, value in values.items() if name not in _OF_ANY_SECTION}
