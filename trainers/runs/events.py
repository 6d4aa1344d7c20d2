"""Writes scalars to TensorBoard event files, without the usual `SummaryWriter`s, which import torch."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.durable import writing


class TensorBoard:
    """Writes an event file in `folder`, which is created at the first write. Writes are not buffered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Any = None
        self._records: Any = None

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one point per name, except for values that are not finite, which cannot be plotted.

        Raises:
            DiskError: the file cannot be written.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        finite = [Summary.Value(tag=name, simple_value=value) for name, value in values.items() if math.isfinite(value)]
        self._add(step=step, summary=Summary(value=finite))

    def void_from(self, step: int) -> None:
        """Makes TensorBoard discard the points from `step` on, which are about to be logged again."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._add(step=step, session_log=SessionLog(status=SessionLog.START))

    def close(self) -> None:
        """Closes the file."""
        if self._file:
            self._file.close()

    def _add(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with writing(self._folder):
            if self._file is None:
                self._open()
            self._records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def _open(self) -> None:
        """Opens a file whose name sorts after those of earlier drivers, and writes TensorBoard's file header."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = (self._folder / name).open("wb", buffering=0)
        self._records = RecordWriter(self._file)
        self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
