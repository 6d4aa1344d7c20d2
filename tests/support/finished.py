"""Runs of trainers.ppo trained to their end, and their weights."""

from __future__ import annotations

from pathlib import Path

import torch

from trainers.ppo import read_prompts, train
from trainers.rlhf_config import PPOConfig
from trainers.run import Run


def finished_run(config: PPOConfig) -> Path:
    """The folder of the run, which this trains or resumes."""
    with Run(config.name, config) as run:
        train(config, run, read_prompts(config))
        return run.path


def weights(run: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(run / "model").state_dict()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
