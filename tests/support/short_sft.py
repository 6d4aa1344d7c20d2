"""Settings of a short SFT run, without its model and data."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, Any] = {
    "name": "t",
    "batch_size": 4,
    "epochs": 1,
    "micro_batch_tokens": 80,
    "eval_every": 3,
    "checkpoint_every": 2,
    "optimizer": {"lr": 1e-2, "warmup_steps": 2},
}
