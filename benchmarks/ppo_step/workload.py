"""The workload: a Llama-shaped model of 34 million parameters, the sample clinic's prompts, and response lengths.

The model's weights are changed so that the probability of ending a response is the same after every token: lengths
follow a geometric distribution, or responses never end by themselves. Otherwise it is a model with random weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from actors.config import ArchitectureConfig
from actors.modeling.models import new_causal_lm
from actors.modeling.packing import Packing
from configs.base import read
from data.clinic.build import Sizes, build
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.runs.export import export_model, load_tokenizer

ARCHITECTURE = ArchitectureConfig(
    hidden_size=512, intermediate_size=1280, layers=10, heads=8, kv_heads=8, context=1024, tie_embeddings=False
)
VOCABULARY = 4096
NEVER = -1e4  # logit of a token that is never sampled
CONSTANT = 0  # the dimension of the residual stream that only the embedding writes


@dataclass(frozen=True)
class Workload:
    """The requests of one step."""

    name: str
    prompts: int
    samples: int  # responses to each prompt
    max_new_tokens: int
    mean_tokens: float | None  # mean length of responses that end by themselves; None: all have max_new_tokens
    steps: int  # measured steps, after one for warm-up

    @property
    def rows(self) -> int:
        """Number of responses per step."""
        return self.prompts * self.samples


WORKLOADS = (
    Workload("fixed", prompts=8, samples=4, max_new_tokens=128, mean_tokens=None, steps=3),
    Workload("varied", prompts=16, samples=4, max_new_tokens=512, mean_tokens=96.0, steps=3),
)


@dataclass(frozen=True)
class Roles:
    """Settings of the engine and the policy."""

    dtype: str
    threads: int  # of each role
    stage: int  # ZeRO stage; on one rank nothing is sharded


def make_model(folder: Path, clinic: Path, workload: Workload) -> Path:
    """Writes the workload's model with the clinic's tokenizer to `folder`, unless the folder exists."""
    if folder.is_dir():
        return folder
    tokenizer = load_tokenizer(clinic / "tokenizer")
    marks = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    model = new_causal_lm(ARCHITECTURE, VOCABULARY, *marks, seed=0)
    _end_with(model, tokenizer.eos_token_id, 0.0 if workload.mean_tokens is None else 1.0 / workload.mean_tokens)
    export_model(folder, tokenizer, model.save_pretrained)
    return folder


def make_clinic(folder: Path) -> Path:
    """Writes the sample clinic's prompts and tokenizer to `folder`."""
    build(folder, 0, Sizes())
    return folder


@torch.no_grad()
def _end_with(model: PreTrainedModel, end: int, probability: float) -> None:
    """Sets the probability of the end token `end`, after every token, to `probability`.

    One dimension of the residual stream has the same value for every token, and no layer writes to it. The final norm
    divides it by the stream's root mean square, which is nearly constant with random weights; the end token's row of
    the head reads it.
    """
    model.get_input_embeddings().weight[:, CONSTANT] = 1.0
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter[CONSTANT] = 0.0
    head = model.get_output_embeddings().weight
    head[:, CONSTANT] = 0.0
    head[end] = 0.0
    tokens = torch.randint(VOCABULARY, (1, 256), generator=torch.Generator().manual_seed(0))
    hidden = model.base_model(tokens, packing=Packing((256,), tokens.device)).last_hidden_state[0]  # (256, hidden)
    constant = hidden[:, CONSTANT].mean()
    others = (hidden @ head.T).exp().sum(-1).mean() - 1.0
    wanted = torch.tensor(NEVER) if probability == 0.0 else (others * probability / (1.0 - probability)).log()
    head[end, CONSTANT] = wanted / constant


def settings(workload: Workload, model: Path, clinic: Path, roles: Roles) -> PPOConfig:
    """Returns the trainer's settings for the GRPO steps: no reference (as in TRL's default), one update per step."""
    section: dict[str, Any] = {
        "name": workload.name,
        "prompts.train": f"[{clinic / 'prompts.train.parquet'}]",
        "steps": workload.steps + 1,
        "prompts_per_step": workload.prompts,
        "samples_per_prompt": workload.samples,
        "algorithm.name": "grpo",
        "algorithm.minibatches": 1,
        "algorithm.kl_coef": 0,
        "policy.model": model,
        "policy.placement.threads": roles.threads,
        "policy.optimizer.lr": 1e-6,
        "policy.zero.stage": roles.stage,
        "policy.zero.dtype": roles.dtype,
        "rollout.placement.threads": roles.threads,
        "rollout.max_new_tokens": workload.max_new_tokens,
        "rollout.engine.dtype": roles.dtype,
        "rollout.engine.max_model_len": ARCHITECTURE.context,
        "publish.tolerance": 1e-4 if roles.dtype == "float32" else 0.5,
        "reward": "null",
        "reward_function.functions.length.file": Path(__file__).with_name("reward.py"),
        "checkpoint_every": workload.steps + 1,
        "samples_every": workload.steps + 1,
    }
    config = read(
        "ppo", STAGES, ["--config", "configs/laptop.yaml", *(f"--{key}={value}" for key, value in section.items())]
    )
    assert isinstance(config, PPOConfig)
    return config
