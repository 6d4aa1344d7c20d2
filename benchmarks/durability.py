"""python -m benchmarks.durability: the cost of journal and checkpoints per step of a trainers.ppo run without faults.

Trains one run and compares the time of every write with that of the steps. The cost per step is the time to write
the journal and the rewards, and the time that a checkpoint blocks training: in one step, to copy policy and critic, and
in the next, to wait for the part of the write that is not finished yet. The arguments are those of trainers.ppo. Prints
JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from cluster.connect import connect
from configs.base import load
from configs.errors import one_line_errors
from configs.logs import configure
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.ppo import read_prompts, train
from trainers.rlhf.checkpoints import Checkpoints
from trainers.rlhf.journal import Journal
from trainers.runs.folder import Run

PROG = "python -m benchmarks.durability"
WARM_UP = 2  # number of first steps that are excluded because of one-time initialization


def main() -> None:
    """Trains the run and prints the time spent on journal and checkpoints."""
    config = load("ppo", STAGES, sys.argv[1:], PROG)
    assert isinstance(config, PPOConfig)
    spent = Spent()
    spent.watch(Journal, "record", "journal")
    spent.watch(Journal, "record_rewards", "rewards")
    spent.watch(Checkpoints, "begin", "checkpoint_copy")
    spent.watch(Checkpoints, "commit", "checkpoint_commit")
    configure("ppo", config.name)
    with one_line_errors(PROG), connect(**config.cluster.connection()), Run(config.name, config) as run:
        train(config, run, read_prompts(config))
        steps = [line["seconds"] for line in run.metrics()]
    print(json.dumps(figures(spent, steps, config.checkpoint_every), indent=1))


class Spent:
    """Records the duration of every call of the watched methods, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def watch(self, owner: type, method: str, name: str) -> None:
        """Wraps `owner.method`, so that the duration of every call, in seconds, is appended to `seconds[name]`."""
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any) -> Any:
            began = time.monotonic()
            try:
                return original(*arguments)
            finally:
                self.seconds[name].append(time.monotonic() - began)

        setattr(owner, method, timed)


def figures(spent: Spent, steps: list[float], checkpoint_every: int) -> dict[str, Any]:
    """Returns the median time of a step and of each write, and the writes' share of the time after the warm-up.

    Times are in seconds.

    The calls of the warm-up steps are excluded, except for checkpoint copies, which most steps do not have.

    Args:
        spent: durations of all calls.
        steps: duration of each step, in seconds.
        checkpoint_every: steps between checkpoints.
    """
    kept = {name: values[WARM_UP:] for name, values in spent.seconds.items() if name != "checkpoint_copy"}
    kept["checkpoint_copy"] = spent.seconds["checkpoint_copy"]
    total = sum(steps[WARM_UP:])
    journal = sum(kept["journal"]) + sum(kept["rewards"])
    checkpoints = sum(kept["checkpoint_copy"]) + sum(kept["checkpoint_commit"])
    return {
        "steps": len(steps) - WARM_UP,
        "checkpoint_every": checkpoint_every,
        "step_seconds": statistics.median(steps[WARM_UP:]),
        "seconds_a_call": {name: statistics.median(values) for name, values in kept.items() if values},
        "most_seconds_a_call": {name: max(values) for name, values in kept.items() if values},
        "share_journal": journal / total,
        "share_checkpoints": checkpoints / total,
        "share": (journal + checkpoints) / total,
    }


if __name__ == "__main__":
    main()
