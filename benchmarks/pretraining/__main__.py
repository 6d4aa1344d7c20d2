"""python -m benchmarks.pretraining: compares the speed of pretraining with a PyTorch loop and transformers.Trainer.

All run on one rank, with the same model and the same blocks of 4,096 tokens, in one call of this command.

    ours_vs_loop     tokens per second of `python -m trainers.pretrain`, relative to the loop
                     (benchmarks.pretraining.bare)
    ours_vs_trainer  the same, relative to transformers.Trainer
    mfu              floating-point operations per second of ours, relative to a matmul in the training process

Each runs in its own process with the same number of threads. Ours and the loop alternate for several rounds, with the
order swapped every round; `transformers.Trainer` is much slower, so it runs once, at the end. Tokens per second are
those of the 25th percentile of step times, without the warm-up steps of a round, because other load on the machine only
makes steps slower. The machine's own speed drifts within minutes, so `ours_vs_loop` is the median of `by_round`, the
ratio of each round. `loss_difference` is the largest difference between a step's loss and the loop's, which shows that
they do the same work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pretraining.workload import WARM_UP, Workload, given, make_inputs
from benchmarks.subcommands import run_python
from configs.base import dump
from configs.errors import one_line_errors
from trainers.config.supervised import PretrainConfig
from trainers.runs.folder import read_metrics

PROG = "python -m benchmarks.pretraining"
PATIENCE_S = 3600.0
_WORLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of a torch.distributed world that the caller may be part of; Trainer would wait for that world."""
_SIZES = (
    ("block_tokens", "tokens of a block"),
    ("blocks", "blocks of a step"),
    ("steps", "measured, of a round"),
    ("rounds", "of ours and the loop, in turns"),
)


def main() -> None:
    """Measures and prints the results as JSON."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), action="append", help="default: both")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: %(default)s")
    for name, what in _SIZES:
        flag, default = f"--{name.replace('_', '-')}", getattr(Workload, name)
        parser.add_argument(flag, type=int, default=default, help=f"{what} (default: %(default)s)")
    stage = "ZeRO stage of ours; on one rank, higher stages shard nothing and take longer (default: %(default)s)"
    parser.add_argument("--stage", type=int, choices=range(4), default=Workload.stage, help=stage)
    parser.add_argument("--hidden", type=int, default=Workload.hidden, help="width of the model (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=Workload.layers, help="default: %(default)s")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON, or write it to FILE")
    options = vars(parser.parse_args())
    dtypes, target = options.pop("dtype") or ["float32", "bfloat16"], options.pop("json")
    workload = Workload(dtype=dtypes[0], **options)
    with one_line_errors(PROG), tempfile.TemporaryDirectory(prefix="chimed-pretraining-") as folder:
        result = {dtype: compare(replace(workload, dtype=dtype), Path(folder)) for dtype in dtypes}
    text = json.dumps({"threads": workload.threads, **result}, indent=1)
    if target and target != "-":
        Path(target).write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


def compare(workload: Workload, folder: Path) -> dict[str, Any]:
    """Runs all rounds and returns their `figures`. Writes its files below `folder`."""
    config = make_inputs(folder, workload)
    ours: list[dict[str, Any]] = []
    bare: list[dict[str, Any]] = []
    for number in range(workload.rounds):
        named = config.model_copy(update={"name": f"{config.name}-{number}"})
        if number % 2:
            bare.append(_contender("bare", config, workload, folder))
            ours.append(_ours(named, workload, folder))
        else:
            ours.append(_ours(named, workload, folder))
            bare.append(_contender("bare", config, workload, folder))
    trainer = [_contender("trainer_peer", config, workload, folder)]
    return figures({"ours": ours, "loop": bare, "trainer": trainer}, workload)


def figures(rounds: dict[str, list[dict[str, Any]]], workload: Workload) -> dict[str, Any]:
    """Returns `tokens_per_second` of each contender, the ratios, and the loss differences.

    Args:
        rounds: the measurements of each round, by contender.
    """
    measured = slice(WARM_UP, WARM_UP + workload.steps)
    seconds = {name: [each["seconds"][measured] for each in of] for name, of in rounds.items()}
    tokens = workload.blocks * workload.block_tokens
    speed = {name: tokens / _lower_quartile([s for each in of for s in each]) for name, of in seconds.items()}
    by_round = [
        _lower_quartile(loop) / _lower_quartile(ours)
        for ours, loop in zip(seconds["ours"], seconds["loop"], strict=True)
    ]
    ours = rounds["ours"]
    losses = {name: np.array(of[0]["losses"][measured]) for name, of in rounds.items()}
    return {
        "parameters": ours[0]["parameters"],
        "tokens_per_second": speed,
        "ours_vs_loop": statistics.median(by_round),
        "ours_vs_trainer": speed["ours"] / speed["trainer"],
        "by_round": by_round,
        "seconds": seconds,
        "mfu": statistics.median(value for each in ours for value in each["mfu"][measured]),
        "peak_memory_bytes": max(ours[0]["peak_memory_bytes"]),
        "loss_difference": {name: float(abs(losses[name] - losses["loop"]).max()) for name in ("ours", "trainer")},
    }


def _lower_quartile(seconds: list[float]) -> float:
    return float(np.quantile(seconds, 0.25))


def _ours(config: PretrainConfig, workload: Workload, folder: Path) -> dict[str, Any]:
    """Runs trainers.pretrain and returns its measurements.

    A step's seconds are those between two lines of metrics.jsonl, so they include all work between steps.
    """
    from actors.model_folder.config_json import read_shape

    recipe = folder / f"{config.name}.yaml"
    dump(config, recipe)
    _run(["-m", "trainers.pretrain", "--config", str(recipe)], workload, folder)
    lines = list(read_metrics(folder / "runs" / config.name))
    times = [lines[0]["time"] - lines[0]["seconds"], *(line["time"] for line in lines)]
    return {
        "seconds": [end - begun for begun, end in pairwise(times)],
        "losses": [line["loss"] for line in lines],
        "mfu": [line["mfu"] for line in lines],
        "peak_memory_bytes": [line["peak_memory_bytes"] for line in lines],
        "parameters": read_shape(Path(str(config.model))).parameters(),
    }


def _contender(name: str, config: PretrainConfig, workload: Workload, folder: Path) -> dict[str, Any]:
    """Runs the module `name` of benchmarks.pretraining, and returns the JSON that it writes."""
    answer = folder / f"{name}-{workload.dtype}.json"
    _run(["-m", f"benchmarks.pretraining.{name}", given(config, workload, answer)], workload, folder)
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def _run(arguments: list[str], workload: Workload, folder: Path) -> None:
    print(f"{workload.dtype}: {arguments[1]}", file=sys.stderr, flush=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(workload.threads),
        "MKL_NUM_THREADS": str(workload.threads),
        "CHIMED_RUNS": str(folder / "runs"),
    }
    for name in _WORLD:
        environment.pop(name, None)
    run_python(arguments, PATIENCE_S, environment)


if __name__ == "__main__":
    main()
