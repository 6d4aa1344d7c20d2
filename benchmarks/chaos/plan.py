"""Who is killed or stopped, in which phase of which step, in which run: drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.chaos.workload import PHASES, RANKS

NODE = ("raylet", 0)
TARGETS = (*((role, rank) for role, ranks in RANKS.items() for rank in range(ranks)), ("driver", 0), NODE)
NOTICE = "drain"
"""What is sent to a node: it will be taken away."""
SLOTS = (1, 3, 4)
"""Steps, from 0, in which something happens; checkpoints are written in the first two."""


@dataclass(frozen=True)
class Blow:
    """One SIGKILL or SIGSTOP, or a node's notice."""

    target: tuple[str, int]
    phase: str
    signal: str
    step: int
    delay: float
    """When in the phase, as a part of what it takes undisturbed."""


def draw(runs: int, seed: int, a_run: int = len(SLOTS), hangs: bool = True) -> list[list[Blow]]:
    """`a_run` blows for each of `runs` runs: every target in every phase and, with `hangs`, every role stopped once.

    With these comes the notice that the second node will be taken away, in a phase of generating and one of learning.

    As many of these as there is room for, in an order drawn from `seed`; the rest are kills drawn at random.
    """
    drawn = random.Random(seed)
    chosen = [(target, phase, "SIGKILL") for target in TARGETS for phase in PHASES]
    if hangs:
        chosen += [
            ((role, drawn.randrange(ranks)), drawn.choice(PHASES[:3]), "SIGSTOP") for role, ranks in RANKS.items()
        ]
        chosen += [(NODE, phase, NOTICE) for phase in ("generate", "learn")]
    drawn.shuffle(chosen)
    while len(chosen) < runs * a_run:
        chosen.append((drawn.choice(TARGETS), drawn.choice(PHASES), "SIGKILL"))
    chosen = chosen[: runs * a_run]
    # A checkpoint is written in the first slots only: what is to hit one comes first, and is dealt round to all runs.
    chosen.sort(key=lambda blow: blow[1] != "checkpoint")
    dealt = [chosen[run::runs] for run in range(runs)]
    return [[Blow(*blow, step, drawn.random()) for blow, step in zip(blows, SLOTS, strict=False)] for blows in dealt]
