"""Writes scalars and settings to TensorBoard event files, without the usual `SummaryWriter`s, which import torch."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reporting.formats import format_setting
from storage.durable import writing
from trainers.runs.panels import section_of


class TensorBoard:
    """Writes an event file in `folder`, which is created at the first write. Writes are not buffered.

    Args:
        settings: the run's settings, shown on TensorBoard's page "HParams".
    """

    def __init__(self, folder: Path, settings: Mapping[str, bool | int | float | str]) -> None:
        self._folder = folder
        self._settings = settings
        self._file: Any = None
        self._records: Any = None

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one point per name, tagged `SECTION/NAME`, except for values that are not finite, which cannot be plotted.

        Raises:
            DiskError: the file cannot be written.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        finite = {f"{section_of(name)}/{name}": value for name, value in values.items() if math.isfinite(value)}
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in finite.items()]
        self._add(step=step, summary=Summary(value=points))

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
        """Opens a file whose name sorts after those of earlier drivers; writes TensorBoard's file header and the settings."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = (self._folder / name).open("wb", buffering=0)
        self._records = RecordWriter(self._file)
        self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        summary = hparams_pb(self._settings, trial_id=str(self._folder))
        self._records.write(Event(wall_time=time.time(), summary=summary).SerializeToString())


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Returns nested settings by dotted name; lists and None become text."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = value if isinstance(value, bool | int | float | str) else format_setting(value)
    return found
