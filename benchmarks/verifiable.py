"""python -m benchmarks.verifiable: compares all algorithms on a task with a verifiable reward.

The reward function is in benchmarks/verifiable_reward.py. Trains the quickstart's SFT model for each algorithm, seed,
and value of `rollout.ahead`, with the same budget. No prompt repeats within the budget, so the success rate of a step
is measured on prompts that were not trained on. Prints a table; can also write all curves as JSON and as one figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path

from benchmarks.learning_curves import draw
from benchmarks.subcommands import run_python
from configs.errors import one_line_errors
from storage.paths import runs_root
from trainers.runs.folder import read_metrics

ALGORITHMS = ("ppo", "grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline")
PROG = "python -m benchmarks.verifiable"
LAST = 5  # the result is the mean over this many steps
RUN_S = 1800.0


def main() -> None:
    """Trains one run after another and prints the results."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__)
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help="default: %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--ahead", default="0", help="values of rollout.ahead (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="of each run (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=16, help="of each step, 4 responses each (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the curves there")
    parser.add_argument("--svg", metavar="FILE", help="also draw the curves there")
    options = parser.parse_args()
    with one_line_errors(PROG):
        curves: dict[str, list[float]] = {}
        print(
            "| algorithm | ahead | seed | success, first step | last steps | seconds a step |\n|---|--:|--:|--:|--:|--:|"
        )
        for algorithm in options.algorithms.split(","):
            for ahead in options.ahead.split(","):
                for seed in options.seeds.split(","):
                    lines = run(algorithm, ahead, seed, options.steps, options.prompts)
                    success = [line["reward"] for line in lines]
                    seconds = statistics.median(line["seconds"] for line in lines)
                    curves[f"{algorithm}/ahead-{ahead}/seed-{seed}"] = success
                    metrics = f"{success[0]:.2f} | {statistics.mean(success[-LAST:]):.2f} | {seconds:.2f}"
                    print(f"| {algorithm} | {ahead} | {seed} | {metrics} |", flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
        if options.svg:
            Path(options.svg).write_text(
                draw(by_algorithm(curves), "share of responses that succeed", LAST), encoding="utf-8"
            )


def by_algorithm(curves: Mapping[str, list[float]]) -> dict[str, list[list[float]]]:
    """Groups the seeds' curves by algorithm and `rollout.ahead`, which is part of the name unless it is 0."""
    found: dict[str, list[list[float]]] = {}
    for name, curve in curves.items():
        algorithm, ahead, _ = name.split("/")
        steps = ahead.removeprefix("ahead-")
        found.setdefault(algorithm if steps == "0" else f"{algorithm}, ahead {steps}", []).append(curve)
    return found


def run(algorithm: str, ahead: str, seed: str, steps: int, prompts: int) -> list[dict[str, float]]:
    """Trains one run, unless it is finished, and returns its metrics.

    Raises:
        RunError: the run failed.
    """
    name = f"verifiable/{algorithm}-ahead-{ahead}-seed-{seed}"
    settings = {
        "name": name,
        "seed": seed,
        "steps": steps,
        "prompts_per_step": prompts,
        "samples_per_prompt": 4,
        "algorithm.name": algorithm,
        "algorithm.kl_coef": 0.02,
        "algorithm.rollout_correction": "none" if ahead == "0" else "truncated",
        "policy.optimizer.lr": 3e-4,
        "reward": "null",
        "reward_function.functions.polite.file": str(Path(__file__).with_name("verifiable_reward.py")),
        "rollout.ahead": ahead,
        "samples_every": steps,
    }
    flags = [f"--{key}={value}" for key, value in settings.items()]
    run_python(["-m", "trainers.ppo", "--config", "configs/laptop.yaml", *flags], RUN_S)
    return list(read_metrics(runs_root() / name))


if __name__ == "__main__":
    main()
