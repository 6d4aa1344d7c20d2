"""python -m benchmarks.ppo_step: compares a step of RLHF with the machine's limits, bare vLLM, and TRL.

Two GRPO workloads on a Llama-shaped model of 34 million parameters: `fixed`, 32 responses of 128 tokens; `varied`, 64
responses that end by themselves, after at most 512 tokens. Reports the time of every phase, in seconds, and these
ratios, measured in the same run:

    rollout_vs_vllm    speed of the whole phase "generate", relative to bare LLM.generate for the same requests
    publish_vs_memcpy  time to publish new weights to the engine, divided by the time to copy them once in memory
    driver_share       share of a step in which no role works
    step_vs_floor      time of a step, divided by the time of its floating-point operations at the rate of its matmuls
    speedup_vs_trl     time of a step of TRL's GRPOTrainer, divided by ours, for the same model, prompts, group size,
                       and lengths (--peer trl)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.ppo_step.floor import step_flops
from benchmarks.ppo_step.machine import copy_seconds, feed_forward_flops
from benchmarks.ppo_step.ours import Measured, measure, median_phases
from benchmarks.ppo_step.workload import WORKLOADS, Roles, Workload, make_clinic, make_model, settings
from benchmarks.subcommands import run_python
from configs.errors import ConfigError, one_line_errors
from trainers.config.rlhf import PPOConfig

PROG = "python -m benchmarks.ppo_step"
PEER_S = 3600.0


def main() -> None:
    """Measures and prints the results as JSON."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--workload", choices=names, action="append", help="default: all")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each role (default: %(default)s)")
    stage = "ZeRO stage of the policy; on one rank, higher stages shard nothing and take longer (default: %(default)s)"
    parser.add_argument("--stage", type=int, choices=range(4), default=3, help=stage)
    parser.add_argument("--peer", choices=("trl",), help="also measure that; pip install --no-deps trl==1.16.0 first")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON, or write it to FILE")
    options = parser.parse_args()
    with one_line_errors(PROG):
        if options.peer and not find_spec("trl"):
            raise ConfigError("--peer trl: TRL is not installed; pip install --no-deps trl==1.16.0, or leave it out")
        wanted = [workload for workload in WORKLOADS if workload.name in (options.workload or names)]
        with tempfile.TemporaryDirectory(prefix="chimed-step-") as folder:
            result = compare(wanted, Roles(options.dtype, options.threads, options.stage), options.peer, Path(folder))
    text = json.dumps(result, indent=1)
    if options.json and options.json != "-":
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


def compare(wanted: list[Workload], roles: Roles, peer: str | None, folder: Path) -> dict[str, Any]:
    """Returns `phases` in seconds, `ratios`, and `machine` of each workload. Writes its files below `folder`."""
    os.environ["CHIMED_RUNS"] = str(folder / "runs")
    clinic = make_clinic(folder / "clinic")
    phases, ratios, machine = {}, {}, {}
    for workload in wanted:
        model = make_model(folder / f"model-{workload.name}", clinic, workload)
        config = settings(workload, model, clinic, roles)
        _say(f"{workload.name}, {roles.dtype}: what the machine can do")
        rate, copy = _machine(model, roles)
        _say(f"{workload.name}, {roles.dtype}: {config.steps} steps")
        ours = measure(config)
        _say(f"{workload.name}, {roles.dtype}: bare vLLM")
        bare = _bare(config, roles.threads, ours)
        floors = [step_flops(pq.read_table(path)) / rate for path in ours.journal]
        phases[workload.name] = median_phases(ours.steps) | {
            f"bare_{what}": statistics.median(seconds) for what, seconds in bare.items()
        }
        machine[workload.name] = {"matmul_gflops": rate / 1e9, "memcpy": copy, "floor": statistics.median(floors)}
        ratios[workload.name] = {
            "rollout_vs_vllm": _median(
                b / step["seconds_generate"] for b, step in zip(bare["generate"], ours.steps, strict=True)
            ),
            "publish_vs_memcpy": _median(step["transfer_seconds"] / copy for step in ours.steps),
            "driver_share": statistics.median(ours.idle),
            "step_vs_floor": _median(step["seconds"] / floor for step, floor in zip(ours.steps, floors, strict=True)),
        }
        if peer:
            _say(f"{workload.name}, {roles.dtype}: {peer}")
            theirs = _trl(config, workload, roles.threads)
            phases[workload.name][peer] = statistics.median(theirs)
            ratios[workload.name][f"speedup_vs_{peer}"] = statistics.median(theirs) / phases[workload.name]["seconds"]
    return {**asdict(roles), "phases": phases, "ratios": ratios, "machine": machine}


def _machine(model: Path, roles: Roles) -> tuple[float, float]:
    """Returns the machine's floating-point operations per second, and the time to copy the weights, in seconds."""
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    precision = torch.float32 if roles.dtype == "float32" else torch.bfloat16
    copied = copy_seconds(size * precision.itemsize // 4, roles.threads)
    return feed_forward_flops(precision, roles.threads), copied


def _bare(config: PPOConfig, threads: int, ours: Measured) -> dict[str, list[float]]:
    """Times vLLM without this project's code around it, on the requests in the run's journal.

    Returns:
        Times in seconds: `generate`, one per measured step; `reload`, one per weight reload.
    """
    given = {
        "model": config.policy.model,
        "rollout": config.rollout.model_dump_json(),
        "files": [str(path) for path in ours.journal],
    }
    found: dict[str, list[float]] = _in_process("benchmarks.ppo_step.bare", given, threads)
    return found


def _trl(config: PPOConfig, workload: Workload, threads: int) -> list[float]:
    """Returns the durations of TRL's steps in seconds, without the first one, which warms up.

    For a workload whose steps take minutes, runs and returns only the first one, for which the warm-up is negligible.
    """
    minutes = workload.mean_tokens is not None
    given = {
        "model": config.policy.model,
        "prompts": config.prompts.train,
        "threads": threads,
        "dtype": config.policy.zero.dtype,
        "rows": workload.rows,
        "samples": workload.samples,
        "max_new_tokens": workload.max_new_tokens,
        "lr": config.policy.optimizer.lr,
        "steps": 1 if minutes else 1 + workload.steps,
    }
    seconds: list[float] = _in_process("benchmarks.ppo_step.trl_peer", given, threads)
    return seconds if minutes else seconds[1:]


def _in_process(module: str, given: dict[str, Any], threads: int) -> Any:
    """Runs `module` in a process with the given threads, and returns the JSON that it writes to the file `answer`.

    Raises:
        RunError: the process failed.
    """
    answer = Path(os.environ["CHIMED_RUNS"]) / "answer.json"
    given["answer"] = str(answer)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME"):  # set for roles that share cores; alone, the default is faster
        environment.pop(name, None)
    run_python(["-m", module, json.dumps(given)], PEER_S, environment)
    return json.loads(answer.read_text())


def _median(values: Any) -> float:
    return statistics.median(values)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
