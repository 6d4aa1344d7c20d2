"""What a finished run proves: that nothing was lost, nothing was learned twice, and the weights are those of another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from benchmarks.chaos.workload import STEPS
from trainers.runs.folder import read_metrics

Learned = Counter[tuple[int, int, int]]
"""How often each answer was learned from: step from 0, prompt, sample."""


def learned(run: Path) -> Learned:
    """What the journal has, as often as metrics.jsonl says that the step was made."""
    times = Counter(line["step"] - 1 for line in read_metrics(run))
    found: Learned = Counter()
    for step in range(STEPS):
        rows = pq.read_table(run / "journal" / f"step-{step:08d}.parquet", columns=["prompt_id", "sample"])
        for row in rows.to_pylist():
            found[step, row["prompt_id"], row["sample"]] += times[step]
    return found


def prompts_lost(run: Path, undisturbed: Path) -> int:
    """Answers that the undisturbed run learned from and this one did not."""
    return (learned(undisturbed) - learned(run)).total()


def prompts_doubled(run: Path, undisturbed: Path) -> int:
    """Answers that this run learned from more often than the undisturbed one, or that were none of its."""
    return (learned(run) - learned(undisturbed)).total()


def identical(run: Path, undisturbed: Path) -> bool:
    """Whether policy and critic ended with the same weights, bit for bit."""
    return all(_equal(run / role, undisturbed / role) for role in ("model", "critic"))


def _equal(mine: Path, theirs: Path) -> bool:
    ours, others = load_file(mine / "model.safetensors"), load_file(theirs / "model.safetensors")
    return ours.keys() == others.keys() and all(torch.equal(ours[name], others[name]) for name in ours)
