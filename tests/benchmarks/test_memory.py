"""What preflight estimates is what processes take: a real run of a small model. `benchmarks.memory` does larger ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.config import ArchitectureConfig
from benchmarks.memory import compare
from cluster.preflight.check import ERROR

pytestmark = pytest.mark.extra


def test_estimated_memory_is_what_a_run_takes(clinic: Path, tmp_path: Path, ray_cluster: None) -> None:
    architecture = ArchitectureConfig(hidden_size=256, intermediate_size=688, layers=6, heads=4, kv_heads=4)
    found = {one.role: one for one in compare(clinic / "tokenizer", architecture, 256, tmp_path)}
    assert list(found) == ["policy", "critic", "reference", "reward", "rollout"]
    assert {role: round(one.error, 3) for role, one in found.items() if abs(one.error) > ERROR} == {}
    # Not the processes' own size alone: a learner holds more than a model that only reads.
    assert found["policy"].measured > found["reference"].measured + 2**28
