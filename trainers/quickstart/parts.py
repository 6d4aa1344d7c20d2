"""Runs the parts of the quickstart as commands, and records the time and memory of each."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from cluster.memory import PeakMemory
from configs.errors import ConfigError
from storage.durable import write_json
from trainers.runs.stopping import Stopped

logger = logging.getLogger(__name__)


class Ledger:
    """Runs the parts; keeps each one's time in seconds, and the peak memory, in a file, across restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = {}
        self.peak_bytes = 0
        if path.exists():
            kept = json.loads(path.read_text())
            self.seconds, self.peak_bytes = kept["seconds"], kept["peak_bytes"]

    def run(self, part: str, module: str, *arguments: str, quiet: bool = False) -> None:
        """Runs `python -m module arguments`.

        Args:
            part: the name under which its time is recorded; parts of the same name are added up.
            quiet: discards the command's standard output, because its results are shown in another form.

        Raises:
            ConfigError: the command failed; it has printed the reason.
            Stopped: a stop was requested, and the command has ended.
        """
        start = time.monotonic()
        environment = {**os.environ, "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore")}
        try:
            with PeakMemory() as memory:
                status = _status_of([sys.executable, "-m", module, *arguments], environment, quiet)
        finally:  # also if it was stopped
            self.seconds[part] = round(self.seconds.get(part, 0.0) + time.monotonic() - start, 1)
            self.peak_bytes = max(self.peak_bytes, memory.peak_bytes)
            write_json({"seconds": self.seconds, "peak_bytes": self.peak_bytes}, self._path)
        if status:
            raise ConfigError(
                f"{part} failed with status {status}, see the output above; fix the cause and run the same "
                "command again"
            )


def _status_of(command: Sequence[str], environment: Mapping[str, str], quiet: bool) -> int:
    """Runs a command and returns its exit status.

    Forwards SIGTERM and Ctrl-C of this process to the command, and raises Stopped when the command has ended.
    """
    asked: list[int] = []
    output = subprocess.DEVNULL if quiet else None
    # In a separate process group, so that a signal of the terminal reaches the command once, through this process.
    with subprocess.Popen(command, env=environment, process_group=0, stdout=output) as process:

        def stop(number: int, _: FrameType | None) -> None:
            asked.append(number)
            process.send_signal(number)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            status = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if asked:
        logger.info("stopped; run the same command to continue")
        raise Stopped(signal.Signals(asked[0]).name)
    return status
