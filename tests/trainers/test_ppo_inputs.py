"""What PPO refuses of its models, before anything starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from actors.modeling.models import load_scorer
from configs.errors import ConfigError
from data.tables import PROMPTS, write_table
from trainers.config.rlhf import PPOConfig
from trainers.ppo import read_prompts
from trainers.runs.export import load_tokenizer


@pytest.mark.parametrize("role", ["critic", "reference", "reward"])
def test_a_role_with_another_chat_format_is_refused(role: str, clinic: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(clinic / "model")
    load_scorer(str(clinic / "model"), torch.float32).save_pretrained(tmp_path / "scorer")
    for name in ("right", "other"):
        shutil.copytree(clinic / "model" if role == "reference" else tmp_path / "scorer", tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        tokenizer.chat_template = tokenizer.chat_template.replace("\\n[bot]:", "\\n\\n[bot]:")
    rows = [{"prompt": [{"role": "user", "content": f"病人{n}头痛怎么办"}]} for n in range(8)]
    write_table(pa.Table.from_pylist(rows, PROMPTS), tmp_path / "prompts.parquet")
    trained = {"model": str(clinic / "model")}
    values: dict[str, Any] = {
        "name": "t",
        "steps": 1,
        "prompts_per_step": 8,
        "prompts": {"train": (str(tmp_path / "prompts.parquet"),), "max_tokens": 64},
        "policy": trained,
        "critic": trained,
        "reference": trained,
        "reward": {"model": str(tmp_path / "scorer")},
    }

    def read(name: str) -> int:
        return len(read_prompts(PPOConfig.model_validate({**values, role: {"model": str(tmp_path / name)}})))

    assert read("right") == 8
    with pytest.raises(ConfigError, match=r"model and .*/other have different chat formats"):
        read("other")
