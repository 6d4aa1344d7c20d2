"""python -m benchmarks.durability: what journal and checkpoints cost a step of an undisturbed run of trainers.ppo.

One run is trained; within it the seconds of every write are compared with those of the step that it lay in. A step's cost is
writing its journal and rewards, and its checkpoint's part: a copy of policy and critic in one step, and in the next one what is
left to wait for of the writing between. Arguments are those of trainers.ppo. Prints JSON.
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
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.ppo import read_prompts, train
from trainers.rlhf.checkpoints import Checkpoints
from trainers.rlhf.journal import Journal
from trainers.runs.folder import Run

PROG = "python -m benchmarks.durability"
WARM_UP = 2  # first steps, which load what others have loaded


def main() -> None:
    """Trains the run and prints what it spent on its safety."""
    config = load("ppo", STAGES, sys.argv[1:], PROG)
    assert isinstance(config, PPOConfig)
    spent = Spent()
    spent.watch(Journal, "record", "journal")
    spent.watch(Journal, "record_rewards", "rewards")
    spent.watch(Checkpoints, "begin", "checkpoint_copy")
    spent.watch(Checkpoints, "commit", "checkpoint_commit")
    with one_line_errors(PROG), connect(**config.cluster.connection()), Run(config.name, config) as run:
        train(config, run, read_prompts(config))
        steps = [line["seconds"] for line in run.metrics()]
    print(json.dumps(figures(spent, steps, config.checkpoint_every), indent=1))


class Spent:
    """Seconds in methods that are watched, call by call."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def watch(self, owner: type, method: str, name: str) -> None:
        """From now on, `name` gets the seconds of every call of `owner.method`."""
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any) -> Any:
            began = time.monotonic()
            try:
                return original(*arguments)
            finally:
                self.seconds[name].append(time.monotonic() - began)

        setattr(owner, method, timed)


def figures(spent: Spent, steps: list[float], checkpoint_every: int) -> dict[str, Any]:
    """Median seconds of a step and of each write, and the share of all steps after the warm-up that writes took.

    A journal is written in every step; a checkpoint's calls are over all steps too, since most of them have none.
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
