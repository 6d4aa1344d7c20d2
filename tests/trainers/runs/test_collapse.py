"""What ends a run, and by which words."""

from __future__ import annotations

import pytest

from trainers.config.rlhf import StopConfig
from trainers.runs.collapse import CollapseError, refuse_collapse

STOP = StopConfig(entropy_below=0.1, kl_above=20.0)


def test_a_sound_step_passes() -> None:
    refuse_collapse(STOP, 3, {"reward": -1.0, "policy_loss": 0.2, "policy_entropy": 0.1, "kl_to_reference": 20.0})
    refuse_collapse(StopConfig(), 3, {"reward": 0.0, "policy_entropy": 0.0, "kl_to_reference": 1e9})


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"reward": float("nan")}, "step 3: reward is nan"),
        ({"policy_loss": float("inf")}, "step 3: policy_loss is inf"),
        ({"policy_entropy": 0.09}, "policy_entropy 0.09 is below stop.entropy_below 0.1"),
        ({"kl_to_reference": 21.0}, "kl_to_reference 21 is above stop.kl_above 20"),
    ],
)
def test_a_collapse_is_named(metrics: dict[str, float], words: str) -> None:
    with pytest.raises(CollapseError, match=words):
        refuse_collapse(STOP, 3, metrics)
