"""Progress of a stage: a bar on a terminal, otherwise a plain line every ten seconds; a line per held-out evaluation."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

import rich.progress
from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows the number of completed steps, the remaining time, and a few metrics.

        with Progress("sft", total=300, show=("loss",)) as progress:
            progress.update(step, {"loss": 2.1})

    Args:
        stage: the stage's name, at the start of the line.
        total: number of steps of the whole stage.
        start: number of steps completed before this process resumed the run; they do not count toward the speed.
        show: names of the metrics to show.
        out: output stream (default: stdout); on a terminal, progress is shown as a bar.
    """

    def __init__(
        self, stage: str, total: int, start: int = 0, show: tuple[str, ...] = (), out: TextIO | None = None
    ) -> None:
        self.stage, self.total, self.start, self.show = stage, total, start, show
        self._out = out or sys.stdout
        self._began = time.monotonic()
        self._line_at = -_SECONDS_BETWEEN_LINES
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._out.isatty():
            columns = ("{task.description}", rich.progress.BarColumn(), "{task.fields[text]}")
            self._bar = rich.progress.Progress(*columns, console=Console(file=self._out))
            self._task = self._bar.add_task(self.stage, total=self.total, completed=self.start, text="")
            self._bar.start()
        return self

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Shows that `step` steps are completed, and the held-out metrics among `metrics`, if any."""
        text = "  ".join(
            [f"{step}/{self.total}", f"eta {clock(self.seconds_left(step))}"]
            + [f"{name} {value:.4g}" for name, value in (metrics or {}).items() if name in self.show]
        )
        now = time.monotonic()
        if held_out := held_out_metrics(metrics or {}):
            figures = "  ".join(f"{name} {value:.4g}" for name, value in held_out.items())
            self._print(f"{self.stage}  {step}/{self.total}  {figures}")
        if self._bar:
            self._bar.update(self._task, completed=step, text=text)
        elif step >= self.total or now - self._line_at >= _SECONDS_BETWEEN_LINES:
            self._line_at = now
            self._print(f"{self.stage}  {text}")

    def seconds_left(self, step: int) -> float | None:
        """Returns the seconds until the end at this process's mean speed; None before its first step has completed."""
        if step >= self.total:
            return 0.0
        if step <= self.start:
            return None
        return (time.monotonic() - self._began) / (step - self.start) * (self.total - step)

    def _print(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            print(line, file=self._out, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()


def held_out_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics of a held-out evaluation among those of a step, by name; empty if there was none.

    Metrics of parts of the held-out data, such as `heldout_accuracy/rude`, are omitted.
    """
    return {
        name: value
        for name, value in metrics.items()
        if name.startswith("eval/") or (name.startswith("heldout_") and "/" not in name)
    }


def clock(seconds: float | None) -> str:
    """Formats seconds as `1:02:03` or `2:03`; None as `-:--`."""
    if seconds is None:
        return "-:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
