"""Builds the publisher of an RLHF run: its engines, its probe, and the precision of the check."""

from __future__ import annotations

from actors.groups.role_groups import RoleGroups
from actors.model_folder.checks import window_of
from actors.model_folder.config_json import read_config
from actors.model_folder.source import model_dir
from actors.weight_sync.publisher import Publisher
from trainers.config.rlhf import PPOConfig
from trainers.rlhf.prompts import PromptStream


def make_publisher(config: PPOConfig, roles: RoleGroups, prompts: PromptStream) -> Publisher:
    """Returns the publisher that sends the weights of the policy to the engines."""
    probe = prompts.probe(config.publish.probe_sequences, _beyond_window(config))
    dtypes = (config.policy.zero.dtype, config.rollout.engine.dtype)
    coarser = "bfloat16" if "bfloat16" in dtypes else "float32"
    return Publisher(config.publish, roles.policy, roles.rollout, probe, coarser)


def _beyond_window(config: PPOConfig) -> int:
    """Returns the length, in tokens, of a probe that exceeds the policy's sliding window; 0 without a window.

    The length is at most the engines' `max_model_len` - 1.
    """
    window = window_of(read_config(model_dir(config.policy.model), "policy.model"))
    return min(window + 64, config.rollout.engine.max_model_len - 1) if window else 0
