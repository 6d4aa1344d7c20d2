"""The list of checks, cheapest first. Does not import torch: the process that runs a check imports its function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


class SkippedError(Exception):
    """A check cannot run here; the message says why."""


@dataclass(frozen=True)
class Check:
    """One check: the function of `module` with the check's name, called with whether it runs on a GPU."""

    name: str
    module: str
    limit_s: float
    purpose: str

    def run(self, gpu: bool) -> dict[str, Any]:
        """Runs the check and returns its metrics. Raises AssertionError if it fails, SkippedError if it cannot run."""
        function: Callable[[bool], dict[str, Any]] = getattr(import_module(self.module), self.name)
        return function(gpu)


_HERE = "benchmarks.gpu_check"
_LIST = (
    Check(
        "machine",
        f"{_HERE}.machine",
        60,
        "rates of matrix products and of copies, with which other metrics are compared",
    ),
    Check(
        "attention", f"{_HERE}.kernels", 60, "packed attention, forward and backward, against fp64 attention a sequence"
    ),
    Check("flex", f"{_HERE}.kernels", 90, "soft-capped attention and attention with sinks, against fp64"),
    Check("logprobs", f"{_HERE}.kernels", 30, "log-probabilities of large vocabularies: error, memory, time"),
    Check(
        "families",
        f"{_HERE}.precision",
        60,
        "miniatures of model families, packed on this device against fp32 on the CPU",
    ),
    Check(
        "zero",
        f"{_HERE}.training",
        120,
        "ZeRO stages, dtypes, offload, recomputation: updates of plain AdamW, exact reload",
    ),
    Check("learn", f"{_HERE}.training", 60, "one learning step of policy and critic; the first KL is exactly 0"),
    Check("precision", f"{_HERE}.precision", 60, "log-probabilities in bf16, packed and by Transformers, against fp32"),
    Check(
        "checkpoint",
        f"{_HERE}.large",
        90,
        "how long a checkpoint stops training, and gathering weights to publish them",
    ),
    Check(
        "sleep", f"{_HERE}.large", 90, "a learner's memory freed for other roles, and back: what stays, and how long"
    ),
    Check(
        "vocabulary",
        f"{_HERE}.large",
        90,
        "half a billion parameters, vocabulary of 151,936: logits in one piece and in several",
    ),
    Check("train_1b", f"{_HERE}.large", 120, "1.3 billion parameters: tokens/s, MFU, peak memory against its estimate"),
    Check(
        "train_7b_lora",
        f"{_HERE}.large",
        120,
        "7 billion parameters with LoRA: tokens/s, MFU, peak memory against its estimate",
    ),
    Check(
        "grpo", f"{_HERE}.grpo", 240, "steps of GRPO through Ray and vLLM, roles in turns: phases, tokens/s, TFLOP/s"
    ),
    # Last: vLLM ends the process's torch.distributed world.
    Check(
        "engine", f"{_HERE}.engines", 180, "vLLM against the trainer, asleep and published to; tokens/s, GB/s, memory"
    ),
)
CHECKS = {check.name: check for check in _LIST}
