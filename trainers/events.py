"""Scalars for TensorBoard, written with TensorBoard's own event writer (the usual `SummaryWriter`s import torch)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    """An event file in `folder`, made when there is something to write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point a name; values that are not finite have no place in a plot and are left out."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        finite = [Summary.Value(tag=name, simple_value=value) for name, value in values.items() if math.isfinite(value)]
        self._add(step, summary=Summary(value=finite))

    def void_from(self, step: int) -> None:
        """Let TensorBoard forget the points from `step` on, which are about to be made again."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._add(step, session_log=SessionLog(status=SessionLog.START))

    def close(self) -> None:
        if self._writer:
            self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder), flush_secs=10)
        self._writer.add_event(Event(step=step, wall_time=time.time(), **content))
