"""Settings that every stage has."""

from __future__ import annotations

import pytest

from configs.base import read
from configs.errors import ConfigError
from trainers.config.stages import STAGES


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_insecure_is_a_setting_of_the_cluster(stage):
    assert not read(stage, STAGES, []).cluster.connection()["insecure"]
    assert read(stage, STAGES, ["--insecure"]).cluster.connection()["insecure"]


@pytest.mark.parametrize(("prompts", "minibatches"), [(2, 4), (6, 4)])
def test_a_step_that_does_not_fill_its_minibatches_is_refused(prompts, minibatches):
    changes = [f"--prompts_per_step={prompts}", "--samples_per_prompt=1", f"--algorithm.minibatches={minibatches}"]
    said = f"= {prompts} samples are not divisible by algorithm.minibatches {minibatches}; set minibatches to a divisor"
    with pytest.raises(ConfigError, match=said):
        read("ppo", STAGES, ["--config", "configs/laptop.yaml", *changes])
