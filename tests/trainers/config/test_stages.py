"""Settings that every stage has."""

from __future__ import annotations

import pytest

from configs.base import read
from trainers.config.stages import STAGES


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_insecure_is_a_setting_of_the_cluster(stage):
    assert not read(stage, STAGES, []).cluster.connection()["insecure"]
    assert read(stage, STAGES, ["--insecure"]).cluster.connection()["insecure"]
