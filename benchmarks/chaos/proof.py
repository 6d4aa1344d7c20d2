"""Checks of a finished run: no response was lost or trained on twice, and the weights equal those of another run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from benchmarks.chaos.workload import STEPS
from trainers.runs.folder import read_metrics

Learned = Counter[tuple[int, int, int]]
"""How many times each response was trained on, by (step, prompt, sample); steps are counted from 0."""


def learned(run: Path) -> Learned:
    """Counts each response in the journal as many times as metrics.jsonl contains its step."""
    times = Counter(line["step"] - 1 for line in read_metrics(run))
    found: Learned = Counter()
    for step in range(STEPS):
        rows = pq.read_table(run / "journal" / f"step-{step:08d}.parquet", columns=["prompt_id", "sample"])
        for row in rows.to_pylist():
            found[step, row["prompt_id"], row["sample"]] += times[step]
    return found


def prompts_lost(run: Path, undisturbed: Path) -> int:
    """Returns the number of times that the undisturbed run trained on a response in excess of this run's count."""
    return (learned(undisturbed) - learned(run)).total()


def prompts_doubled(run: Path, undisturbed: Path) -> int:
    """Returns the number of times that this run trained on a response in excess of the undisturbed run's count."""
    return (learned(run) - learned(undisturbed)).total()


def identical(run: Path, undisturbed: Path) -> bool:
    """Returns whether the final weights of policy and critic are bit-identical in both runs."""
    return all(_equal(run / role, undisturbed / role) for role in ("model", "critic"))


def _equal(mine: Path, theirs: Path) -> bool:
    ours, others = load_file(mine / "model.safetensors"), load_file(theirs / "model.safetensors")
    return ours.keys() == others.keys() and all(torch.equal(ours[name], others[name]) for name in ours)
