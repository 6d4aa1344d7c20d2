"""The stages that a recipe may have, each with its settings. Does not import torch."""

from __future__ import annotations

from configs.base import Section
from trainers.config.rejection import RejectionConfig
from trainers.config.rlhf import PPOConfig
from trainers.config.supervised import DpoConfig, PretrainConfig, RewardConfig, SftConfig

STAGES: dict[str, type[Section]] = {
    "pretrain": PretrainConfig,
    "sft": SftConfig,
    "reward": RewardConfig,
    "dpo": DpoConfig,
    "ppo": PPOConfig,
    "rejection": RejectionConfig,
}
