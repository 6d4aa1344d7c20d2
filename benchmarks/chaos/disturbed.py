"""Runs the workload once with the planned faults; restarts its driver after every kill or stop until the run ends."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.chaos.cluster import TwoNodes
from benchmarks.chaos.plan import NOTICE, Fault
from benchmarks.chaos.workload import PHASES
from configs.errors import RunError
from trainers.runs.stopping import EXIT_CODE

Position = tuple[int, int]
"""Progress of a run: the step, counted from 0, and the index of the phase."""


class ChaosError(RunError):
    """A run did not finish; the message names the file with its output."""


@dataclass
class Timeline:
    """The timeline of a run: when it first reached each position, and its faults.

    Times are in seconds on the monotonic clock.
    """

    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    reached: dict[Position, float] = field(default_factory=dict)
    injected: list[tuple[Fault, Position, float]] = field(default_factory=list)

    @property
    def frontier(self) -> Position:
        """The furthest position that the run has reached."""
        return max(self.reached)

    def lost(self, undisturbed: Timeline) -> list[float]:
        """Returns the seconds lost to each fault.

        These are the seconds from the fault to the next fault or the end, minus those that the undisturbed run took
        between the same positions.
        """
        ends = [*((position, at) for _, position, at in self.injected[1:]), (None, self.ended)]
        return [
            (until - at) - (undisturbed.at(end) - undisturbed.at(position))
            for (_, position, at), (end, until) in zip(self.injected, ends, strict=True)
        ]

    def at(self, position: Position | None) -> float:
        """Returns the time at which `position` was reached; for None, the time at which the run ended."""
        return self.ended if position is None else self.reached[position]

    def seconds(self, phase: str) -> float:
        """Returns the duration of a phase in the last step that has it, in seconds."""
        times = sorted(self.reached.items())
        spans = [later[1] - mine[1] for mine, later in pairwise(times) if mine[0][1] == PHASES.index(phase)]
        return spans[-1]


def disturbed(
    nodes: TwoNodes, recipe: Path, run: str, faults: list[Fault], patience_s: float, undisturbed: Timeline | None = None
) -> Timeline:
    """Runs `recipe` to its end, injects faults on the way, and returns the timeline.

    Args:
        nodes: the cluster.
        recipe: the recipe to run.
        run: the run's name in `recipe`.
        faults: the faults to inject, in order.
        patience_s: time limit of the run, in seconds.
        undisturbed: the timeline of an undisturbed run, which determines the time of a fault within its phase.

    Raises:
        ChaosError: the run failed, or did not finish within `patience_s` seconds.
    """
    timeline, pending, output = Timeline(), list(faults), recipe.with_suffix(".out")
    while True:
        words: queue.Queue[tuple[Position, float] | None] = queue.Queue()
        driver = _start(nodes, recipe, output, words)
        try:
            deadline = timeline.began + patience_s
            while (word := _next(words, deadline)) is not None:
                position, at = word
                timeline.reached.setdefault(position, at)
                if (
                    pending
                    and (pending[0].step, PHASES.index(pending[0].phase)) <= position
                    and _in_phase(pending[0], position)
                ):
                    if undisturbed:
                        time.sleep(pending[0].delay * undisturbed.seconds(pending[0].phase))
                    if _inject(nodes, run, driver, pending[0]):
                        timeline.injected.append((pending.pop(0), timeline.frontier, time.monotonic()))
            code = driver.wait(max(1.0, deadline - time.monotonic()))
        except (queue.Empty, subprocess.TimeoutExpired) as error:
            raise ChaosError(f"{run} was not at its end after {patience_s:.0f} s; its output: {output}") from error
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        if code == 0:
            timeline.ended = time.monotonic()
            return timeline
        if code == EXIT_CODE and timeline.injected and timeline.injected[-1][0].signal == NOTICE:
            nodes.replace_second()
        elif code != -signal.SIGKILL:
            raise ChaosError(f"{run} ended with exit status {code}; its output: {output}")


def _in_phase(fault: Fault, position: Position) -> bool:
    return position[1] == PHASES.index(fault.phase)


def _inject(nodes: TwoNodes, run: str, driver: subprocess.Popen[bytes], fault: Fault) -> bool:
    role, rank = fault.target
    if fault.signal == NOTICE:
        nodes.drain()
        return True
    if role == "raylet":
        nodes.kill_raylet()
        return True
    if role == "driver":
        driver.kill()
        return True
    return nodes.inject(run, role, rank, signal.Signals[fault.signal])


def _start(
    nodes: TwoNodes, recipe: Path, output: Path, words: queue.Queue[tuple[Position, float] | None]
) -> subprocess.Popen[bytes]:
    """Starts the driver in a new process. Puts the positions that it announces into `words`, and None when it ends."""
    reading, writing = os.pipe()
    with output.open("ab") as out:
        driver = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chaos.driver", str(writing), "--config", str(recipe)],
            env={**os.environ, "RAY_ADDRESS": nodes.address, "CHIMED_RUNS": str(recipe.parent / "runs")},
            stdout=out,
            stderr=out,
            pass_fds=(writing,),
        )
    os.close(writing)

    def listen() -> None:
        with open(reading, encoding="utf-8") as lines:
            for line in lines:
                step, phase, at = json.loads(line)
                words.put(((step, PHASES.index(phase) if phase in PHASES else 0), at))
        words.put(None)

    threading.Thread(target=listen, daemon=True).start()
    return driver


def _next(words: queue.Queue[tuple[Position, float] | None], deadline: float) -> tuple[Position, float] | None:
    return words.get(timeout=max(0.1, deadline - time.monotonic()))
