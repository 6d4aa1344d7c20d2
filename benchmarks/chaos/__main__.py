"""python -m benchmarks.chaos: fault injection into PPO runs, which must give the same result as a run without faults.

    make chaos                      21 runs, 63 faults: kills of every role, the driver, and a node's raylet in every
                                    phase of a step, a hang of every role, and preemption notices for a node
    make chaos ARGS='--runs=2'      a short form
    make chaos ARGS='--turns'       roles take turns (`sleep`) in all runs but the undisturbed one

A run has six steps on two Ray nodes of this machine, and three faults: SIGKILL of a process, SIGSTOP of a process (a
hang), or Ray's notice that a node will be drained, after which the run stops gracefully. After any fault, the same
command must reach the end with policy and critic weights bit-identical to those of an undisturbed run, and with every
response trained on exactly once. Exits with status 1 if a run fails.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean

from benchmarks.chaos.cluster import TwoNodes
from benchmarks.chaos.disturbed import ChaosError, Timeline, disturbed
from benchmarks.chaos.plan import NOTICE, SLOTS, Fault, draw
from benchmarks.chaos.proof import identical, prompts_doubled, prompts_lost
from benchmarks.chaos.workload import PATIENCE_S, make_inputs, write_recipe
from configs.errors import one_line_errors

PROG = "python -m benchmarks.chaos"


def main() -> None:
    """Makes the undisturbed run, then the others; prints the result of each, and the totals in the last line."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=21, help="disturbed runs (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=len(SLOTS), choices=range(1, len(SLOTS) + 1), help="faults a run")
    parser.add_argument("--seed", type=int, default=0, help="of the first plan (default: %(default)s)")
    parser.add_argument("--turns", action="store_true", help="all roles share a placement group and take turns")
    parser.add_argument("--no-hangs", action="store_true", help="kills only: no hangs, no notices")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds for a run (default: %(default)g)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="work there and remove nothing")
    options = parser.parse_args()
    with one_line_errors(PROG):
        folder = options.keep or Path(tempfile.mkdtemp(prefix="chimed-chaos-"))
        folder.mkdir(parents=True, exist_ok=True)
        plan = draw(options.runs, options.seed, options.kills, not options.no_hangs)
        print(
            f"seed {options.seed}: {len(plan)} runs, {sum(map(len, plan))} faults; everything is in {folder}",
            flush=True,
        )
        good = chaos(folder, plan, options.patience, options.turns)
        if good and not options.keep:
            shutil.rmtree(folder)
    sys.exit(not good)


def chaos(folder: Path, plan: list[list[Fault]], patience_s: float, turns: bool = False) -> bool:
    """Makes all runs in `folder` and prints their results; returns whether all of them passed.

    Args:
        folder: folder of the inputs and of all runs.
        plan: the faults of each run.
        patience_s: time limit of one run, in seconds.
        turns: see `write_recipe`; does not apply to the undisturbed run.
    """
    counts = {"kills": 0, "runs": 0, "identical": 0, "prompts_lost": 0, "prompts_doubled": 0}
    costs: dict[str, list[float]] = defaultdict(list)
    make_inputs(folder)
    good = True
    with TwoNodes() as nodes:
        whole = disturbed(nodes, write_recipe(folder, "undisturbed"), "undisturbed", [], patience_s)
        print(f"undisturbed: {whole.ended - whole.began:.1f} s", flush=True)
        for number, faults in enumerate(plan):
            name = f"run-{number:02}"
            began = time.monotonic()
            try:
                timeline = disturbed(nodes, write_recipe(folder, name, turns), name, faults, patience_s, whole)
            except ChaosError as error:
                print(f"{name}: {error}", flush=True)
                good = False
                continue
            mine, undisturbed = folder / "runs" / name, folder / "runs" / "undisturbed"
            lost, doubled = prompts_lost(mine, undisturbed), prompts_doubled(mine, undisturbed)
            same = identical(mine, undisturbed)
            for (fault, _, _), cost in zip(timeline.injected, timeline.lost(whole), strict=True):
                costs[fault.target[0] + {"SIGSTOP": " (hang)", NOTICE: " (notice)"}.get(fault.signal, "")].append(cost)
            counts["kills"] += len(timeline.injected)
            counts["runs"] += 1
            counts["identical"] += same
            counts["prompts_lost"] += lost
            counts["prompts_doubled"] += doubled
            good &= same and not lost and not doubled and len(timeline.injected) == len(faults)
            print(
                f"{name}: {_faults_of(timeline, whole)}; {'identical' if same else 'OTHER WEIGHTS'}, "
                f"{time.monotonic() - began:.1f} s",
                flush=True,
            )
    for who, seconds in sorted(costs.items()):
        print(
            f"lost by a fault to {who}: {mean(seconds):.1f} s on average of {len(seconds)}, {max(seconds):.1f} s at most"
        )
    print(" ".join(f"{name}={count}" for name, count in counts.items()), flush=True)
    return good


def _faults_of(timeline: Timeline, whole: Timeline) -> str:
    return ", ".join(
        f"{fault.signal} {fault.target[0]}-{fault.target[1]} in {fault.phase} of step {fault.step + 1} (+{cost:.1f} s)"
        for (fault, _, _), cost in zip(timeline.injected, timeline.lost(whole), strict=True)
    )


if __name__ == "__main__":
    main()
