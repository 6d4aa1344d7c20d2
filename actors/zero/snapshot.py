"""Asynchronous checkpoints: DeepSpeed's shards are copied to host memory, and a background thread writes them to disk.

Training pauses only for the copy, which goes to pinned memory if it comes from a GPU. A rank holds its shard twice
until the thread is done.
"""

from __future__ import annotations

import copy
import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, BinaryIO

import torch
from deepspeed.runtime.checkpoint_engine import CheckpointCommitInfo
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

from storage.durable import writing


class SnapshotEngine(TorchCheckpointEngine):
    """DeepSpeed's checkpoint engine with asynchronous writes; `finish` waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = ThreadPoolExecutor(1, "snapshot")
        self._written: dict[str, Future[str]] = {}

    def create(self, info: CheckpointCommitInfo) -> None:
        """Starts a checkpoint. Waits for and discards an unfinished earlier one, so that memory holds at most one."""
        self.forget()

    def save(self, state_dict: Any, path: str) -> None:
        """Copies `state_dict` and submits the copy for writing; the original may change as soon as this returns."""
        snapshot = on_host(state_dict)
        self._written[path] = self._thread.submit(_write, Path(path), snapshot)

    def forget(self) -> None:
        """Waits for all pending writes and discards their results, including errors."""
        wait(self._written.values())
        self._written = {}

    def finish(self) -> dict[str, str]:
        """Waits until all files are on disk; returns the SHA-256 of each, by path.

        Raises:
            DiskError: a file cannot be written.
        """
        written, self._written = self._written, {}
        return {path: future.result() for path, future in written.items()}


def on_host(state: Any) -> Any:
    """Returns a copy of nested containers on the CPU; tensors that share storage also share it in the copy."""
    copied = _copy(state, {})
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
    return copied


def _copy(value: Any, storages: dict[tuple[int, int], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return _copy_tensor(value.detach(), storages)
    if isinstance(value, dict):
        copied = copy.copy(value)  # keeps the dictionary's type and attributes
        for key in value:
            copied[key] = _copy(value[key], storages)
        return copied
    if type(value) in (list, tuple):
        return type(value)(_copy(each, storages) for each in value)
    return copy.deepcopy(value)


def _copy_tensor(tensor: torch.Tensor, storages: dict[tuple[int, int], torch.Tensor]) -> torch.Tensor:
    """Returns the same view of a copy of the tensor's storage; `storages` holds the copies made so far."""
    storage = tensor.untyped_storage()
    key = storage.data_ptr(), storage.nbytes()
    if key not in storages or not storage.nbytes():
        whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
        target = torch.empty(len(whole), dtype=torch.uint8, pin_memory=tensor.is_cuda)
        storages[key] = target.copy_(whole, non_blocking=tensor.is_cuda)
    view = torch.empty(0, dtype=tensor.dtype)
    return view.set_(storages[key].untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


class _Hashed:
    """A sequentially written file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _write(path: Path, state: Any) -> str:
    with writing(path), path.open("wb") as file:
        hashed = _Hashed(file)
        torch.save(state, hashed)  # type: ignore[arg-type]  # torch.save needs only these methods
        file.flush()
        os.fsync(file.fileno())
    return hashed.hexdigest()
