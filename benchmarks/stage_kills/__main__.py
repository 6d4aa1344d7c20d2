"""python -m benchmarks.stage_kills: kills or interrupts stages at random times; the result must not change.

Every run is disturbed once, at a random time between the start and the end of the command: one in four while Ray starts
and models are loaded, the others after a random step, during whatever follows it: a step, an evaluation, a checkpoint,
or an export. The disturbances take turns:

    driver, worker   SIGKILL
    interrupt        Ctrl-C: SIGINT to the driver
    terminate        SIGTERM to the driver
    group            SIGTERM to the driver's process group, as from `timeout`

A driver that gets a signal must lose no step that it has logged. The same command is then repeated until it finishes.
Its weights and losses must be bit-identical to those of an undisturbed run. Exits with status 1 if they are not, or if
no disturbance came in time.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from benchmarks.stage_kills.workload import SETTINGS, write_inputs, write_recipe
from configs.errors import RunError, one_line_errors
from trainers.runs.folder import read_metrics
from trainers.runs.stopping import EXIT_CODE, INTERRUPTED

PROG = "python -m benchmarks.stage_kills"
PATIENCE_S = 600.0
ENDS = {
    "driver": {-signal.SIGKILL},
    "worker": set[int](),  # it is replaced
    "interrupt": {INTERRUPTED},
    "terminate": {EXIT_CODE, -signal.SIGTERM},
    "group": {EXIT_CODE, -signal.SIGTERM},
}
"""The exit statuses of a command that a disturbance may end, by disturbance.

SIGTERM ends a command that has not begun to connect to Ray at once, as it ends any process.
"""
WORKERS = ("ray::RayTrain", "ray::Policy", "ray::Rollout")
"""Beginnings of the names of the processes that a stage can replace."""
STARTING = 0.25
"""Probability that a disturbance happens before the first step."""
COMPARED = ("step", "loss", "heldout_loss", "reward", "policy_loss", "kl_to_reference")
"""The metrics that must be equal, of those that a stage has."""


@dataclass(frozen=True)
class Kill:
    """A disturbance, one of `ENDS`, `delay_s` seconds after `step` steps were logged (0: after the command started).

    If there is no worker to kill then, it is killed as soon as it exists.
    """

    target: str
    step: int
    delay_s: float


def main() -> None:
    """Disturbs runs of each stage; prints a line with each result, and one with every stage's totals."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", default="sft", help=f"some of {','.join(SETTINGS)} (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="disturbed runs of each stage (default: %(default)s)")
    parser.add_argument("--targets", default=",".join(ENDS), help="disturbances, in turn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times (default: %(default)s)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="work there and remove nothing")
    options = parser.parse_args()
    stages, targets = options.stages.split(","), options.targets.split(",")
    for option, given, known in (("stages", stages, SETTINGS), ("targets", targets, ENDS)):
        if unknown := set(given) - known.keys():
            parser.error(f"--{option}: {unknown.pop()}: give some of {', '.join(known)}")
    folder = options.keep or Path(tempfile.mkdtemp(prefix="chimed-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    with one_line_errors(PROG):
        write_inputs(folder)
        draw = random.Random(options.seed)
        results = [kills(folder, stage, options.kills, targets, draw) for stage in stages]
        if (good := all(results)) and not options.keep:
            shutil.rmtree(folder)
    sys.exit(not good)


def kills(folder: Path, stage: str, count: int, targets: Sequence[str], draw: random.Random) -> bool:
    """Makes `count` disturbed runs of `stage` in `folder`; returns whether all ended with the undisturbed result."""
    began = time.monotonic()
    undisturbed = folder / "runs" / f"{stage}-undisturbed"
    run(folder, stage, undisturbed.name, None)
    whole_s, total = time.monotonic() - began, sum(steps(undisturbed).values())
    print(f"{stage}: undisturbed: {total} steps, {whole_s:.1f} s; everything is in {folder}", flush=True)
    identical = interrupted = 0
    for number in range(count):
        step = 0 if draw.random() < STARTING else draw.randrange(1, total)
        kill = Kill(targets[number % len(targets)], step, draw.uniform(0.0, 0.5 if step else 0.3 * whole_s))
        began = time.monotonic()
        name = f"{stage}-{number:02}"
        reached = run(folder, stage, name, kill)
        differing = differences(folder / "runs" / name, undisturbed)
        identical += not differing
        interrupted += reached is not None
        print(
            f"{name}: {kill.target} {kill.delay_s:.2f} s after step {kill.step}, "
            f"{'which was too late' if reached is None else f'{reached} steps done'}; "
            f"{' and '.join(f'OTHER {what}' for what in differing) or 'identical'}, {time.monotonic() - began:.1f} s",
            flush=True,
        )
    print(f"{stage}: kills={interrupted} runs={count} identical={identical}", flush=True)
    return identical == count and interrupted > 0


def run(folder: Path, stage: str, name: str, kill: Kill | None) -> int | None:
    """Repeats the command until it finishes, with one disturbance.

    Returns the number of steps logged when it was disturbed; None if it was not.

    Raises:
        RunError: the command failed for another reason, did not end within `PATIENCE_S`, or lost a step that it had
            logged although it was only interrupted.
    """
    recipe, output, path = write_recipe(folder, stage, name), folder / f"{name}.out", folder / "runs" / name
    environment = {"CHIMED_RUNS": str(folder / "runs"), "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}
    logged: dict[Path, int] | None = None
    while True:
        with output.open("ab") as out:
            driver = subprocess.Popen(
                [sys.executable, "-m", f"trainers.{stage}", "--config", str(recipe)],
                env={**os.environ, **environment},
                stdout=out,
                stderr=out,
                process_group=0,
            )
        if kill is not None and logged is None:
            logged = _inject(driver, kill, path)
        try:
            code = driver.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise RunError(f"{name} did not end within {PATIENCE_S:g} s; its output: {output}") from error
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        if code == 0:
            return None if logged is None else sum(logged.values())
        if kill is None or logged is None or code not in ENDS[kill.target]:
            raise RunError(f"{name} ended with status {code}; its output: {output}")
        lost = {str(part.relative_to(path.parent)): steps for part, steps in logged.items() if _saved(part) < steps}
        if kill.target != "driver" and lost:
            raise RunError(f"{name} lost steps: logged were {lost}; its output: {output}")


def differences(run: Path, other: Path) -> list[str]:
    """Returns what is not bit-identical in the two runs: `WEIGHTS`, `METRICS` (those of `COMPARED`), both, or nothing."""
    mine, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (run, other))
    metrics = [
        [(part.relative_to(folder), _compared(part)) for part in sorted(steps(folder))] for folder in (run, other)
    ]
    same = mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    return ["WEIGHTS"] * (not same) + ["METRICS"] * (metrics[0] != metrics[1])


def steps(run: Path) -> dict[Path, int]:
    """Returns the number of steps that a run has logged, by folder: its own, and those of a round's fine-tuning."""
    found = {}
    for folder, below, files in os.walk(run):  # which leaves out what the command removes in the meantime
        if "checkpoints" in below:
            below.remove("checkpoints")
        if "metrics.jsonl" in files:
            found[Path(folder)] = max((line["step"] for line in read_metrics(Path(folder))), default=0)
    return found


def _compared(run: Path) -> list[dict[str, float]]:
    return [{name: line[name] for name in COMPARED if name in line} for line in read_metrics(run)]


def _inject(driver: subprocess.Popen[bytes], kill: Kill, run: Path) -> dict[Path, int] | None:
    """Waits for the time of the kill, and kills the target.

    Returns the number of steps logged by then, by folder; None if the run had already ended.
    """
    while driver.poll() is None and sum(steps(run).values()) < kill.step:
        time.sleep(0.01)
    time.sleep(kill.delay_s)
    while driver.poll() is None:
        family = psutil.Process(driver.pid).children(recursive=True)
        workers = [one for one in family if _is_worker(one)]
        if kill.target != "worker" or workers:
            logged = steps(run)
            if kill.target == "worker":
                workers[0].kill()
            elif kill.target == "group":
                os.killpg(driver.pid, signal.SIGTERM)
            else:
                driver.send_signal(
                    {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}.get(kill.target, signal.SIGKILL)
                )
            if kill.target == "driver":
                _end(family)
            return logged
        time.sleep(0.05)
    return None


def _saved(run: Path) -> int:
    """Returns how many steps of a run are durable: all if it has finished, else those of its checkpoint or journal."""
    if (run / "DONE").exists():
        return steps(run)[run]
    checkpoints = [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]
    if (run / "checkpoints").exists():
        return max(checkpoints, default=0)
    return len(list((run / "journal").glob("step-*.parquet")))  # rejection sampling trains nothing itself


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name().startswith(WORKERS)
    return False


def _end(family: list[psutil.Process]) -> None:
    """Waits for Ray's processes, which end after their driver; kills those that remain, which would occupy memory."""
    _, left = psutil.wait_procs(family, timeout=30)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    main()
