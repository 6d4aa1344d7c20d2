"""python -m benchmarks.soak [--minutes N] [--kill-every S] -- ARGUMENTS: soak test of a PPO run for resource leaks.

Starts `python -m trainers.ppo ARGUMENTS`; ARGUMENTS must set enough steps for N minutes. Every S seconds, the processes
of one role are killed with SIGKILL: rollout, policy, reward, critic, and reference, in turn, of which the run may lack
some; if they are just being replaced, the kill waits for them. After N minutes, the driver is stopped with SIGTERM.
Meanwhile, the memory and the number of open files of the driver, the roles, and Ray's gcs_server and raylet are sampled
every two seconds. The run's output is appended to runs/NAME.out, and all samples of each process (seconds since the
start, bytes, files) are written to runs/NAME.samples.json, also if the test fails or is interrupted.

The first 240 s of a process are its warm-up. A process that was sampled for at least another 240 s is evaluated: the
mean of the last quarter of its samples after the warm-up is compared with the mean of the first quarter. It has grown
if its memory increased by more than 5% or its open files by more than 2. Memory is anonymous memory, that is, heaps and
stacks (RssAnon); pages of libraries are excluded, because whether they are shared depends on what else runs on the
machine.

Exits with status 0 if the run completed a step after every kill, was still running after N minutes, and then ended with
status 75 within 300 s, and if at least one process was evaluated and none has grown; otherwise with status 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean

import psutil

from cluster.memory import status_bytes
from configs.base import load
from configs.errors import one_line_errors
from storage.paths import runs_root
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.runs.folder import read_metrics
from trainers.runs.stopping import EXIT_CODE

PROG = "python -m benchmarks.soak"
ROLES = {
    "rollout": "Rollout",
    "policy": "Policy",
    "reward": "Reward",
    "critic": "Critic",
    "reference": "Reference",
}
"""The names of the roles' processes, in the order in which they are killed."""
RAY = ("gcs_server", "raylet")
SAMPLE_S = 2.0
WARM_UP_S = 240.0
"""Warm-up of a process, in seconds; not evaluated, because memory grows while caches fill and allocators adapt."""
EVALUATED_S = 240.0  # minimum duration of the samples after the warm-up for an evaluation
GROWTH = 0.05  # allowed relative growth of memory
FILES = 2  # allowed growth of open files: one file being written, one connection being opened
STOP_S = 300.0


@dataclass(frozen=True)
class Sample:
    """One sample of a process: seconds since the start of the test, bytes of memory, and number of open files."""

    at: float
    memory: int
    files: int


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a process that was sampled for at least `WARM_UP_S` + `EVALUATED_S`.

    Attributes:
        seconds: the process's lifetime.
        memory_mib, files: mean memory and mean number of open files, each in the first and in the last quarter.
    """

    process: str
    seconds: float
    memory_mib: tuple[float, float]
    files: tuple[float, float]

    @property
    def growth(self) -> float:
        """Relative growth of memory."""
        return self.memory_mib[1] / self.memory_mib[0] - 1.0

    @property
    def flat(self) -> bool:
        """Whether memory and open files grew by no more than allowed."""
        return self.growth <= GROWTH and self.files[1] - self.files[0] <= FILES


def main() -> None:
    """Prints a line for every kill, the evaluated processes as JSON, and the totals in the last line."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: %(default)g)")
    parser.add_argument("--kill-every", type=float, default=180.0, help="seconds between kills (default: %(default)g)")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENTS", help="of trainers.ppo, after --")
    options = parser.parse_args()
    config = load("ppo", STAGES, options.arguments, PROG)
    assert isinstance(config, PPOConfig)
    with one_line_errors(PROG):
        seconds, kill_every = options.minutes * 60, options.kill_every
        good = soak(options.arguments, runs_root() / config.name, list(config.roles), seconds, kill_every)
    sys.exit(not good)


def soak(arguments: list[str], run: Path, roles: Collection[str], seconds: float, kill_every: float) -> bool:
    """Runs the test; returns whether the run continued after every kill and stopped as requested, and no process grew.

    The result is also false if no process was evaluated.

    Args:
        arguments: the arguments for trainers.ppo.
        run: the run's folder.
        roles: the run's roles.
        seconds: duration of the test, in seconds.
        kill_every: seconds between kills.
    """
    samples: dict[tuple[str, int], list[Sample]] = {}
    victims = cycle(name for role, name in ROLES.items() if role in roles)
    victim = next(victims)
    kills = survived = 0
    began = time.monotonic()
    next_kill, steps_then = kill_every, 0
    run.parent.mkdir(parents=True, exist_ok=True)
    with run.with_suffix(".out").open("ab") as out:
        driver = subprocess.Popen([sys.executable, "-m", "trainers.ppo", *arguments], stdout=out, stderr=out)
    try:
        while (now := time.monotonic() - began) < seconds and driver.poll() is None:
            _sample(driver.pid, now, samples)
            steps = _steps(run)
            if now >= next_kill and _kill(driver.pid, victim):
                survived += kills > 0 and steps > steps_then
                kills, steps_then, next_kill = kills + 1, steps, next_kill + kill_every
                left = (seconds - now) / 60
                print(f"{now / 60:.1f} min, step {steps}: killed {victim}; eta {left:.0f} min", flush=True)
                victim = next(victims)
            time.sleep(SAMPLE_S)
        early = driver.poll()
        code = _stopped(driver)
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
        seen = [{"process": name, "pid": pid, "samples": life} for (name, pid), life in samples.items()]
        run.with_suffix(".samples.json").write_text(json.dumps(seen, default=astuple), encoding="utf-8")
    steps = _steps(run)
    survived += kills > 0 and steps > steps_then
    evaluated = [one for key, life in samples.items() if (one := evaluate(key[0], life)) is not None]
    print(json.dumps([{**asdict(one), "growth": round(one.growth, 4)} for one in evaluated], indent=1))
    flat = sum(one.flat for one in evaluated)
    print(
        f"minutes={seconds / 60:g} steps={steps} kills={kills} survived={survived} processes={len(evaluated)} flat={flat} "
        f"growth_max={max((one.growth for one in evaluated), default=math.nan):.3f} exit={code}",
        flush=True,
    )
    return early is None and code == EXIT_CODE and survived == kills and 0 < flat == len(evaluated)


def evaluate(name: str, life: list[Sample]) -> Evaluation | None:
    """Compares the first and the last quarter of a process's samples after its warm-up.

    Returns:
        The evaluation; None if the samples after the warm-up span less than `EVALUATED_S`.
    """
    after = [sample for sample in life if sample.at - life[0].at >= WARM_UP_S]
    if not after or after[-1].at - after[0].at < EVALUATED_S:
        return None
    quarter = max(1, len(after) // 4)
    first, last = after[:quarter], after[-quarter:]
    memory = tuple(round(fmean(sample.memory for sample in part) / 2**20, 1) for part in (first, last))
    files = tuple(round(fmean(sample.files for sample in part), 1) for part in (first, last))
    return Evaluation(name, life[-1].at - life[0].at, (memory[0], memory[1]), (files[0], files[1]))


def _sample(driver: int, at: float, samples: dict[tuple[str, int], list[Sample]]) -> None:
    """Adds a sample of every process, `at` seconds after the start, to `samples`."""
    for name, process in _processes(driver):
        with suppress(psutil.NoSuchProcess):
            sample = Sample(at, status_bytes(process.pid, "RssAnon"), process.num_fds())
            if sample.memory:
                samples.setdefault((name, process.pid), []).append(sample)


def _stopped(driver: subprocess.Popen[bytes]) -> int | None:
    """Stops the driver with SIGTERM; returns its exit status, or None if it does not end within `STOP_S`."""
    if driver.poll() is None:
        driver.terminate()
    try:
        return driver.wait(STOP_S)
    except subprocess.TimeoutExpired:
        print(f"the driver did not end within {STOP_S:g} s of SIGTERM and is killed", flush=True)
        return None


def _processes(driver: int) -> Iterator[tuple[str, psutil.Process]]:
    """Yields the driver, and the roles and Ray processes (`RAY`) that it started, each with its name.

    Yields nothing if the driver has ended.
    """
    try:
        root = psutil.Process(driver)
        family = root.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    yield "driver", root
    for process in family:
        with suppress(psutil.NoSuchProcess):
            title = (process.cmdline() or [""])[0]
            name = title.removeprefix("ray::").split(".")[0].split()[0] if title.startswith("ray::") else ""
            name = name or os.path.basename(title)
            if name in ROLES.values() or name in RAY:
                yield name, process


def _steps(run: Path) -> int:
    return sum(1 for _ in read_metrics(run))


def _kill(driver: int, role: str) -> int:
    """Kills the processes of a role; returns their number."""
    killed = 0
    for name, process in _processes(driver):
        if name == role:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
                killed += 1
    return killed


if __name__ == "__main__":
    main()
