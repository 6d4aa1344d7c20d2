"""The workload: a Llama-shaped model of about 30 million parameters on blocks of the sample clinic's text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.config import ArchitectureConfig
from actors.modeling.models import new_causal_lm
from data.clinic.build import Sizes, build
from trainers.config.supervised import PretrainConfig
from trainers.runs.export import export_model, load_tokenizer

WARM_UP = 3
"""Steps before the measured ones, which warm up allocators, thread pools, and kernels."""


@dataclass(frozen=True)
class Workload:
    """The sizes and settings of one measurement."""

    dtype: str
    threads: int
    block_tokens: int = 4096
    blocks: int = 1  # per step
    steps: int = 5  # measured steps per round
    rounds: int = 3
    hidden: int = 512
    layers: int = 10
    stage: int = 0  # ZeRO stage of ours; on one rank nothing is sharded

    @property
    def architecture(self) -> ArchitectureConfig:
        """The shape of the model."""
        return ArchitectureConfig(
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 5 // 2,
            layers=self.layers,
            heads=max(1, self.hidden // 64),
            kv_heads=max(1, self.hidden // 64),
            context=self.block_tokens,
            tie_embeddings=False,
        )


def make_inputs(folder: Path, workload: Workload) -> PretrainConfig:
    """Writes text and model below `folder`, and returns the settings of pretraining on them."""
    clinic, model = folder / "clinic", folder / "model"
    if not clinic.is_dir():
        build(clinic, 0, Sizes())
    if not model.is_dir():
        tokenizer = load_tokenizer(clinic / "tokenizer")
        marks = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        lm = new_causal_lm(workload.architecture, len(tokenizer), *marks, seed=0)
        export_model(model, tokenizer, lm.save_pretrained)
    section: dict[str, Any] = {
        "name": f"ours-{workload.dtype}",
        "model": str(model),
        "data": {
            "train": [str(clinic / "pretrain.train.parquet")],
            "heldout": [str(clinic / "pretrain.heldout.parquet")],
            "block_tokens": workload.block_tokens,
        },
        "placement": {"cpus_per_rank": 1, "threads": workload.threads},
        "zero": {"stage": workload.stage, "dtype": workload.dtype},
        "optimizer": {"lr": 1e-4, "schedule": "constant", "weight_decay": 0.1},
        "epochs": 1000,
        "max_steps": WARM_UP + workload.steps + 1,  # the last step includes an evaluation
        "batch_size": workload.blocks,
        "micro_batch_tokens": workload.block_tokens,
        "eval_every": 10**6,
        "checkpoint_every": 10**6,
    }
    return PretrainConfig.model_validate_json(json.dumps(section))


def given(config: PretrainConfig, workload: Workload, answer: Path) -> str:
    """Returns the command-line argument for a contender's process, as JSON."""
    return json.dumps({"config": config.model_dump_json(), "workload": asdict(workload), "answer": str(answer)})
