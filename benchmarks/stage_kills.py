"""python -m benchmarks.stage_kills: kills or interrupts SFT at random times; the result must not change.

Every run is disturbed once, at a random time between the start and the end of the command: one in four while Ray starts
and the model is loaded, the others after a random step, during whatever follows it: a step, an evaluation, a
checkpoint, or an export. The disturbances take turns:

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
import json
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
import pyarrow as pa
import torch
from safetensors.torch import load_file

from benchmarks.chaos.workload import make_inputs
from configs.base import dump
from configs.errors import RunError, one_line_errors
from data.tables import SFT, write_table
from trainers.config.supervised import SftConfig
from trainers.runs.folder import read_metrics
from trainers.runs.stopping import EXIT_CODE, INTERRUPTED

PROG = "python -m benchmarks.stage_kills"
PATIENCE_S = 600.0
ENDS = {
    "driver": {-signal.SIGKILL},
    "worker": set[int](),  # it is replaced
    "interrupt": {INTERRUPTED},
    "terminate": {EXIT_CODE, -signal.SIGTERM},  # the latter before training begins, when there is nothing to save
    "group": {EXIT_CODE, -signal.SIGTERM},
}
"""The exit statuses of a command that a disturbance may end, by disturbance."""
CHATS, EPOCHS, BATCH = 96, 3, 4
STEPS = CHATS * EPOCHS // BATCH
STARTING = 0.25
"""Probability that a kill happens before the first step."""


@dataclass(frozen=True)
class Kill:
    """A disturbance, one of `ENDS`, `delay_s` seconds after `step` steps were logged (0: after the command started).

    If there is no worker to kill then, it is killed as soon as it exists.
    """

    target: str
    step: int
    delay_s: float


def main() -> None:
    """Makes the undisturbed run, then the others; prints the result of each, and the totals in the last line."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="number of disturbed runs (default: %(default)s)")
    parser.add_argument("--targets", default=",".join(ENDS), help="disturbances, in turn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times (default: %(default)s)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="work there and remove nothing")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="chimed-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    targets = options.targets.split(",")
    if unknown := set(targets) - ENDS.keys():
        parser.error(f"--targets: {unknown.pop()}: give some of {', '.join(ENDS)}")
    with one_line_errors(PROG):
        good = kills(folder, options.kills, targets, random.Random(options.seed))
        if good and not options.keep:
            shutil.rmtree(folder)
    sys.exit(not good)


def kills(folder: Path, count: int, targets: Sequence[str], draw: random.Random) -> bool:
    """Makes `count` disturbed runs in `folder`; returns whether all ended with the undisturbed run's result."""
    make_inputs(folder)
    rows = [
        {"messages": [_turn("user", f"病人{n}头痛怎么办"), _turn("assistant", "多休息，" * (1 + n % 4))], "task": "qa"}
        for n in range(CHATS)
    ]
    write_table(pa.Table.from_pylist(rows, SFT), folder / "chats.parquet")
    began = time.monotonic()
    run(folder, "undisturbed", None)
    whole_s = time.monotonic() - began
    print(f"undisturbed: {whole_s:.1f} s; everything is in {folder}", flush=True)
    identical = struck = 0
    for number in range(count):
        step = 0 if draw.random() < STARTING else draw.randrange(1, STEPS)
        kill = Kill(targets[number % len(targets)], step, draw.uniform(0.0, 0.5 if step else 0.3 * whole_s))
        began = time.monotonic()
        name = f"run-{number:02}"
        reached = run(folder, name, kill)
        differing = differences(folder / "runs" / name, folder / "runs" / "undisturbed")
        identical += not differing
        struck += reached is not None
        print(
            f"{name}: {kill.target} {kill.delay_s:.2f} s after step {kill.step}, "
            f"{'which was too late' if reached is None else f'{reached} steps done'}; "
            f"{' and '.join(f'OTHER {what}' for what in differing) or 'identical'}, {time.monotonic() - began:.1f} s",
            flush=True,
        )
    print(f"kills={struck} runs={count} identical={identical}", flush=True)
    return identical == count and struck > 0


def run(folder: Path, name: str, kill: Kill | None) -> int | None:
    """Repeats the command until it finishes, with one disturbance.

    Returns the number of steps logged when it was disturbed; None if it was not.

    Raises:
        RunError: the command failed for another reason, did not end within `PATIENCE_S`, or lost a step that it had
            logged although it was only interrupted.
    """
    recipe, output = folder / f"{name}.yaml", folder / f"{name}.out"
    dump(_config(folder, name), recipe)
    reached: int | None = None
    while True:
        with output.open("ab") as out:
            driver = subprocess.Popen(
                [sys.executable, "-m", "trainers.sft", "--config", str(recipe)],
                env={
                    **os.environ,
                    "CHIMED_RUNS": str(folder / "runs"),
                    "RAY_AUTH_MODE": "disabled",
                    "RAY_ADDRESS": "local",
                },
                stdout=out,
                stderr=out,
                process_group=0,
            )
        if kill is not None and reached is None:
            reached = _inject(driver, kill, folder / "runs" / name)
        try:
            code = driver.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise RunError(f"{name} did not end within {PATIENCE_S:g} s; its output: {output}") from error
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        if code == 0:
            return reached
        if kill is None or reached is None or code not in ENDS[kill.target]:
            raise RunError(f"{name} ended with status {code}; its output: {output}")
        if kill.target != "driver" and (saved := _saved(folder / "runs" / name)) < reached:
            raise RunError(f"{name} lost steps: {reached} were logged, {saved} saved; its output: {output}")


def differences(run: Path, other: Path) -> list[str]:
    """Returns what is not bit-identical in the two runs: `WEIGHTS`, `LOSSES` (of the steps), both, or nothing."""
    mine, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (run, other))
    losses = [[(line["step"], line["loss"]) for line in read_metrics(folder)] for folder in (run, other)]
    same = mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    return ["WEIGHTS"] * (not same) + ["LOSSES"] * (losses[0] != losses[1])


def _inject(driver: subprocess.Popen[bytes], kill: Kill, run: Path) -> int | None:
    """Waits for the time of the kill, and kills the target.

    Returns the number of steps logged by then; None if the run had already ended.
    """
    while driver.poll() is None and _steps(run) < kill.step:
        time.sleep(0.01)
    time.sleep(kill.delay_s)
    while driver.poll() is None:
        family = psutil.Process(driver.pid).children(recursive=True)
        workers = [one for one in family if _is_worker(one)]
        if kill.target != "worker" or workers:
            steps = _steps(run)
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
            return steps
        time.sleep(0.05)
    return None


def _steps(run: Path) -> int:
    return max((line["step"] for line in read_metrics(run)), default=0)


def _saved(run: Path) -> int:
    """Returns the steps of the newest checkpoint; 0 if there is none."""
    return max((int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")), default=0)


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name().startswith("ray::RayTrain")
    return False


def _end(family: list[psutil.Process]) -> None:
    """Waits for Ray's processes, which end after their driver; kills those that remain, which would occupy memory."""
    _, left = psutil.wait_procs(family, timeout=30)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _config(folder: Path, name: str) -> SftConfig:
    tables = [str(folder / "chats.parquet")]
    section = {
        "name": name,
        "model": str(folder / "model"),
        "data": {"train": tables, "heldout": tables, "max_tokens": 128},
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "micro_batch_tokens": 512,
        "eval_every": 10,
        "export": "both",
        "checkpoint_every": 4,
        "optimizer": {"lr": 3e-3},
    }
    return SftConfig.model_validate_json(json.dumps(section))


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


if __name__ == "__main__":
    main()
