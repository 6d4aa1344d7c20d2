"""The workload: six steps of PPO with two policy ranks, critic, reference, reward model, and engine, all tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from actors.config import ArchitectureConfig
from actors.modeling.models import load_scorer, new_causal_lm
from configs.base import dump
from data.tables import PROMPTS, write_table
from data.tokenizer.training import train_tokenizer
from trainers.config.rlhf import PPOConfig
from trainers.runs.export import export_model

STEPS = 6
CHECKPOINT_EVERY = 2
PHASES = ("generate", "score", "update", "wait", "publish", "checkpoint")
RANKS = {"policy": 2, "critic": 1, "reference": 1, "reward": 1, "rollout": 1}
HANG_TIMEOUT_S = 20.0
PATIENCE_S = 300.0
"""Time limit of a run including its faults, in seconds; on a machine with other load, a run takes longer."""

_TEXTS = [f"第{n}号病人头痛，建议多休息，按时服药。" * (1 + n % 3) for n in range(40)]
_ARCHITECTURE = ArchitectureConfig(hidden_size=64, intermediate_size=128, layers=2, heads=2, kv_heads=1, context=512)


def make_inputs(folder: Path) -> None:
    """Writes model, reward model, and prompts to `folder`; they are the same every time."""
    tokenizer = train_tokenizer(_TEXTS, names=["头痛"], vocabulary=290)
    ids = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    model = new_causal_lm(_ARCHITECTURE, len(tokenizer), *ids, seed=1)
    export_model(folder / "model", tokenizer, model.save_pretrained)
    scorer = load_scorer(str(folder / "model"), torch.float32)
    torch.nn.init.normal_(scorer.get_submodule("score").weight, generator=torch.Generator().manual_seed(3))
    export_model(folder / "scorer", tokenizer, scorer.save_pretrained)
    rows = [{"prompt": [{"role": "user", "content": f"病人{n}头痛怎么办"}]} for n in range(40)]
    write_table(pa.Table.from_pylist(rows, PROMPTS), folder / "prompts.parquet")


def write_recipe(folder: Path, name: str, turns: bool = False) -> Path:
    """Writes a recipe for the inputs that `make_inputs` wrote to `folder`; returns its path.

    Args:
        folder: the inputs' folder.
        name: name of the run.
        turns: whether all roles share their placement group and take turns.
    """
    model, scorer = str(folder / "model"), str(folder / "scorer")
    optimizer = {"lr": 1e-3, "schedule": "constant"}
    trained = {"optimizer": optimizer}
    roles: dict[str, dict[str, Any]] = {
        "policy": {"model": model, **trained},
        "critic": {"model": scorer, **trained},
        "reference": {"model": model},
        "reward": {"model": scorer},
        "rollout": {"max_new_tokens": 16, "engine": {"max_model_len": 512, "kv_cache_bytes": 2**26}},
    }
    for role, settings in roles.items():
        # With turns, there is one bundle for each policy rank, and a node has room for one.
        settings["placement"] = {"cpus_per_rank": 3.0 if turns else 1.0, "threads": 1, "ranks": RANKS[role]}
    config = PPOConfig.model_validate(
        {
            "name": name,
            "cluster": {"start_timeout_s": 120.0, "collective_timeout_s": 120.0, "hang_timeout_s": HANG_TIMEOUT_S},
            "prompts": {"train": (str(folder / "prompts.parquet"),), "max_tokens": 64},
            "steps": STEPS,
            "prompts_per_step": 8,
            "algorithm": {"minibatches": 2},
            "checkpoint_every": CHECKPOINT_EVERY,
            "samples_every": STEPS,
            "max_failures": 100,
            "colocate": "all" if turns else "none",
            "sleep": turns,
            **roles,
        }
    )
    path = folder / f"{name}.yaml"
    dump(config, path)
    return path
