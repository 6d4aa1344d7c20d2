"""The plan of faults: which process is killed or stopped, in which phase, step, and run, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.chaos.workload import PHASES, RANKS

NODE = ("raylet", 0)
TARGETS = (*((role, rank) for role, ranks in RANKS.items() for rank in range(ranks)), ("driver", 0), NODE)
NOTICE = "drain"
"""Value of `Fault.signal` for a node's preemption notice."""
SLOTS = (1, 3, 4)
"""Steps, counted from 0, in which a fault is injected; checkpoints are written in the first two."""


@dataclass(frozen=True)
class Fault:
    """One fault: SIGKILL or SIGSTOP for a process, or a preemption notice for a node."""

    target: tuple[str, int]
    phase: str
    signal: str
    step: int
    delay: float
    """Time within the phase, as a fraction of the phase's undisturbed duration."""


def draw(runs: int, seed: int, a_run: int = len(SLOTS), hangs: bool = True) -> list[list[Fault]]:
    """Draws `a_run` faults for each of `runs` runs.

    The full plan kills every target in every phase. With `hangs`, it also stops every role once, and sends the
    preemption notice for the second node in a generate phase and in an update phase. If fewer faults are wanted, they
    are drawn from the full plan; if more are wanted, the rest are random kills.

    Args:
        runs: number of runs.
        seed: seed of all random choices.
        a_run: number of faults per run.
        hangs: whether to include hangs and preemption notices.
    """
    drawn = random.Random(seed)
    chosen = [(target, phase, "SIGKILL") for target in TARGETS for phase in PHASES]
    if hangs:
        chosen += [
            ((role, drawn.randrange(ranks)), drawn.choice(PHASES[:3]), "SIGSTOP") for role, ranks in RANKS.items()
        ]
        chosen += [(NODE, phase, NOTICE) for phase in ("generate", "update")]
    drawn.shuffle(chosen)
    while len(chosen) < runs * a_run:
        chosen.append((drawn.choice(TARGETS), drawn.choice(PHASES), "SIGKILL"))
    chosen = chosen[: runs * a_run]
    # Only the first slots write a checkpoint, so faults in that phase come first, and are distributed over all runs.
    chosen.sort(key=lambda fault: fault[1] != "checkpoint")
    dealt = [chosen[run::runs] for run in range(runs)]
    return [
        [Fault(*fault, step, drawn.random()) for fault, step in zip(faults, SLOTS, strict=False)] for faults in dealt
    ]
