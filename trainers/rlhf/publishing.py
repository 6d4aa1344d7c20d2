"""How a run of RLHF publishes its weights: to which engines, checked on which probe, in which precision."""

from __future__ import annotations

from actors.groups.team import Team
from actors.model_folder.checks import read_config, window_of
from actors.model_folder.source import model_dir
from actors.weight_sync.publisher import Publisher
from trainers.config.rlhf import PPOConfig
from trainers.rlhf.prompts import PromptStream


def make_publisher(config: PPOConfig, team: Team, prompts: PromptStream) -> Publisher:
    """The publisher of the policy of `team` to its engines."""
    probe = prompts.probe(config.publish.probe_sequences, _beyond_window(config))
    dtypes = (config.policy.zero.dtype, config.rollout.engine.dtype)
    coarser = "bfloat16" if "bfloat16" in dtypes else "float32"
    return Publisher(config.publish, team.policy, team.rollout, probe, coarser)


def _beyond_window(config: PPOConfig) -> int:
    """Tokens of a probe that is longer than the policy's sliding window, as far as engines take it; 0 without a window."""
    window = window_of(read_config(model_dir(config.policy.model), "policy.model"))
    return min(window + 64, config.rollout.engine.max_model_len - 1) if window else 0
