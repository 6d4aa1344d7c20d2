from __future__ import annotations

import re
import time

import pytest
import ray

from cluster.head import Head
from cluster.placement import PlacementError, release, reserve, total
from cluster.status.pending import pending_groups, seconds_pending

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


def test_what_cannot_be_placed_is_named_with_what_there_is_while_waiting_and_at_the_end(
    ray_cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    cpus = ray.cluster_resources()["CPU"]
    words = rf"rollout needs 2 x \(100 CPU\); no autoscaler here: the cluster has {cpus:g} CPU \([\d.]+ free\)"
    with pytest.raises(PlacementError, match=f"^{words}: timed out after 10 s$"):
        reserve({"policy-kept": [{"CPU": 0.5}], "rollout": [{"CPU": 100.0}] * 2}, timeout_s=10)
    assert caplog.messages
    assert all(re.fullmatch(rf"{words} \(\d+ s\)", message) for message in caplog.messages)
    assert "policy-kept" not in reserved()


def test_what_is_placed_at_once_is_not_spoken_of(ray_cluster: None, caplog: pytest.LogCaptureFixture) -> None:
    release(reserve({"policy": [{"CPU": 0.5}]}, timeout_s=30))
    assert caplog.messages == []


def test_groups_of_other_jobs_are_not_ours(ray_cluster: None) -> None:
    with Head(ray.get_runtime_context().gcs_address) as head:
        asked = ray.util.placement_group([{"CPU": 100.0}], name="ours")
        deadline = time.monotonic() + 10
        while (
            not (mine := pending_groups(head, ray.get_runtime_context().get_job_id())) and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        assert [group.name for group in mine] == ["ours"]
        assert pending_groups(head, "ffffffff") == []
        assert 0 <= seconds_pending(mine[0]) < 15
        ray.util.remove_placement_group(asked)


def test_total_adds_up() -> None:
    assert total({"a": [{"CPU": 1.0, "GPU": 1.0}] * 2, "b": [{"CPU": 0.5}]}) == {"CPU": 2.5, "GPU": 2.0}
