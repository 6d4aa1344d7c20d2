"""Settings of a small PPO run on the models and tables of the fixture `clinic`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from data.tables import PROMPTS, write_table
from trainers.config.rlhf import PPOConfig


def settings(clinic: Path, **changes: Any) -> PPOConfig:
    """Four steps of two updates; the policy has two ranks."""
    placement = {"cpus_per_rank": 0.1, "threads": 1}
    trained = {
        "model": str(clinic / "model"),
        "placement": placement,
        "optimizer": {"lr": 1e-3, "schedule": "constant"},
    }
    scorer = {"model": str(clinic / "scorer"), "placement": placement}
    prompts = clinic / "prompts.train.parquet"
    if not prompts.exists():
        rows = [{"prompt": [{"role": "user", "content": f"病人{n}头痛怎么办"}]} for n in range(20)]
        write_table(pa.Table.from_pylist(rows, PROMPTS), prompts)
    values: dict[str, Any] = {
        "name": "ppo",
        "prompts": {"train": (str(prompts),), "max_tokens": 64},
        "steps": 4,
        "prompts_per_step": 8,
        "algorithm": {"minibatches": 2},
        "policy": {**trained, "placement": {**placement, "ranks": 2}},
        "critic": {**trained, "model": str(clinic / "scorer")},
        "reference": {"model": str(clinic / "model"), "placement": placement},
        "reward": scorer,
        "rollout": {
            "placement": placement,
            "max_new_tokens": 16,
            "engine": {"max_model_len": 512, "kv_cache_bytes": 2**26},
        },
        "checkpoint_every": 2,
        **changes,
    }
    return PPOConfig.model_validate(values)
