from __future__ import annotations

import time

import pytest
import ray

from cluster.placement import PlacementError, release, reserve, total

pytestmark = pytest.mark.slow


def reserved() -> set[str]:
    from ray.util import placement_group_table

    return {group["name"] for group in placement_group_table().values() if group["state"] == "CREATED"}


def test_groups_are_placed_under_their_names_and_given_back(ray_cluster: None) -> None:
    groups = reserve({"policy": [{"CPU": 0.5}] * 2, "critic": [{"CPU": 0.5}]}, timeout_s=30)
    assert {"policy", "critic"} <= reserved()
    release(groups)
    deadline = time.monotonic() + 10
    while {"policy", "critic"} & reserved() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not {"policy", "critic"} & reserved()


def test_what_cannot_be_placed_is_named_with_what_there_is_and_nothing_stays(ray_cluster: None) -> None:
    cpus = ray.cluster_resources()["CPU"]
    with pytest.raises(
        PlacementError, match=rf"rollout: 2 x \(100 CPU\) could not be placed within 10 s.*{cpus:g} CPU in all"
    ):
        reserve({"policy-kept": [{"CPU": 0.5}], "rollout": [{"CPU": 100.0}] * 2}, timeout_s=10)
    assert "policy-kept" not in reserved()


def test_total_adds_up() -> None:
    assert total({"a": [{"CPU": 1.0, "GPU": 1.0}] * 2, "b": [{"CPU": 0.5}]}) == {"CPU": 2.5, "GPU": 2.0}
