"""Saving while training goes on: DeepSpeed's shards are copied to host memory, and a thread brings them to the disk.

It costs the training the time of the copy, and a rank the memory of its shard until the thread is done.
"""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine import CheckpointCommitInfo
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

from data.durable import writing


class SnapshotEngine(TorchCheckpointEngine):
    """DeepSpeed's checkpoint engine with the disk's part put off; `finish` waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = ThreadPoolExecutor(1, "snapshot")
        self._written: dict[str, Future[str]] = {}

    def create(self, info: CheckpointCommitInfo) -> None:
        """Begins a checkpoint. One that nobody asked for is waited for, so that memory holds one at most, and forgotten."""
        self.forget()

    def save(self, state_dict: Any, path: str) -> None:
        """Copies what is to be saved; it may change as soon as this has returned."""
        content = io.BytesIO()
        torch.save(state_dict, content)
        self._written[path] = self._thread.submit(_write, Path(path), content)

    def forget(self) -> None:
        """Waits until nothing is written any more; what became of it nobody wants to know."""
        wait(self._written.values())
        self._written = {}

    def finish(self) -> dict[str, str]:
        """Waits until all files are on the disk: the SHA-256 of each, by path. Raises DiskError."""
        written, self._written = self._written, {}
        return {path: future.result() for path, future in written.items()}


def _write(path: Path, content: io.BytesIO) -> str:
    with writing(path), path.open("wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content.getbuffer()).hexdigest()
