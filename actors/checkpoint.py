"""Checkpoints on a shared file system: written aside, committed by one rename, the old ones removed afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

_NAME = re.compile(r"step-(\d{8})")


class CheckpointStore:
    """The `checkpoints/` folder of one run. One process commits; every rank may write into the folder aside."""

    def __init__(self, root: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"a run keeps at least one checkpoint, not {keep}")
        self.root = root
        self.keep = keep

    def aside(self, step: int) -> Path:
        """The folder to write step `step` into before it is committed. Nothing in it counts yet."""
        return self.root / f"aside-{step:08d}"

    def begin(self, step: int) -> Path:
        """Makes an empty `aside(step)`; what an interrupted writer left there is removed."""
        folder = self.aside(step)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def commit(self, step: int, state: dict[str, Any]) -> Path:
        """Makes `aside(step)` the checkpoint of `step`, with `state` (JSON) beside the weights; then drops the oldest.

        After `commit` has returned, a crash at any moment leaves this checkpoint or a later one.
        """
        folder, final = self.aside(step), self.root / f"step-{step:08d}"
        (folder / "state.json").write_text(json.dumps(state))
        for path in folder.rglob("*"):
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
        _sync(self.root)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.root / f"step-{old:08d}")
        return final

    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(int(m[1]) for path in self.root.iterdir() if (m := _NAME.fullmatch(path.name)))

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Folder and state of the newest committed checkpoint, or None when there is none yet."""
        steps = self.steps()
        if not steps:
            return None
        folder = self.root / f"step-{steps[-1]:08d}"
        return folder, json.loads((folder / "state.json").read_text())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
