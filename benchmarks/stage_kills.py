"""python -m benchmarks.stage_kills: SFT whose worker or driver is killed (SIGKILL) at random moments must end as if it had not been.

A run for each kill, of driver and worker in turn, at a moment anywhere between the start of the command and its end: one in
four while Ray starts and the model is loaded, the others after a random step, in the middle of what comes then: a step, an
evaluation, a checkpoint, an export. The same command is then given again until it gets to its end, whose weights and losses have
to be those of an undisturbed run, bit for bit. Exits with status 1 where they are not, or where no kill came in time.
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import torch
from safetensors.torch import load_file

from benchmarks.chaos.workload import make_inputs
from configs.base import dump
from data.tables import SFT, write_table
from trainers.config.supervised import SftConfig
from trainers.runs.folder import read_metrics

PROG = "python -m benchmarks.stage_kills"
PATIENCE_S = 600.0
TARGETS = ("driver", "worker")
CHATS, EPOCHS, BATCH = 96, 3, 4
STEPS = CHATS * EPOCHS // BATCH
STARTING = 0.25
"""Share of the kills that come before the first step."""


@dataclass(frozen=True)
class Kill:
    """Of whom, and when: seconds after so many steps have been logged (0: after the command was given), or as soon as there is
    such a process.
    """

    target: str
    step: int
    delay_s: float


def main() -> None:
    """Makes the undisturbed run, then the others; prints what became of each, and the sums in the last line."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="work there and remove nothing")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="chimed-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    good = kills(folder, options.kills, random.Random(options.seed))
    if good and not options.keep:
        shutil.rmtree(folder)
    sys.exit(not good)


def kills(folder: Path, count: int, draw: random.Random) -> bool:
    """Whether all runs ended alike. What they left is in `folder`."""
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
        kill = Kill(TARGETS[number % len(TARGETS)], step, draw.uniform(0.0, 0.5 if step else 0.3 * whole_s))
        began = time.monotonic()
        name = f"run-{number:02}"
        reached = run(folder, name, kill)
        differing = differences(folder / "runs" / name, folder / "runs" / "undisturbed")
        identical += not differing
        struck += reached is not None
        print(
            f"{name}: {kill.target} killed {kill.delay_s:.2f} s after step {kill.step}, "
            f"{'which was too late' if reached is None else f'{reached} steps done'}; "
            f"{' and '.join(f'OTHER {what}' for what in differing) or 'identical'}, {time.monotonic() - began:.1f} s",
            flush=True,
        )
    print(f"kills={struck} runs={count} identical={identical}", flush=True)
    return identical == count and struck > 0


def run(folder: Path, name: str, kill: Kill | None) -> int | None:
    """Gives the command until it is at its end, killing once; how many steps the run had logged then, None without a kill.

    Raises RuntimeError for a command that fails otherwise, subprocess.TimeoutExpired for one that does not end.
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
            )
        if kill is not None and reached is None:
            reached = _strike(driver, kill, folder / "runs" / name)
        code = driver.wait(PATIENCE_S)
        if code == 0:
            return reached
        if code != -signal.SIGKILL:
            raise RuntimeError(f"{name} ended with status {code}; its output: {output}")


def differences(run: Path, other: Path) -> list[str]:
    """What is not the same, bit for bit: the weights, the losses of the steps, neither."""
    mine, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (run, other))
    losses = [[(line["step"], line["loss"]) for line in read_metrics(folder)] for folder in (run, other)]
    same = mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    return ["WEIGHTS"] * (not same) + ["LOSSES"] * (losses[0] != losses[1])


def _strike(driver: subprocess.Popen[bytes], kill: Kill, run: Path) -> int | None:
    """Waits for the moment, and kills; steps logged by then. None where the run was at its end before."""
    while driver.poll() is None and _steps(run) < kill.step:
        time.sleep(0.01)
    time.sleep(kill.delay_s)
    while driver.poll() is None:
        family = psutil.Process(driver.pid).children(recursive=True)
        targets = [one for one in family if _is_worker(one)] if kill.target == "worker" else [driver]
        if targets:
            steps = _steps(run)
            targets[0].kill()
            if kill.target == "driver":
                _end(family)
            return steps
        time.sleep(0.05)
    return None


def _steps(run: Path) -> int:
    return max((line["step"] for line in read_metrics(run)), default=0)


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name().startswith("ray::RayTrain")
    return False


def _end(family: list[psutil.Process]) -> None:
    """Ray's processes end with their driver; what is left of them after a while would hold the next one's memory."""
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
