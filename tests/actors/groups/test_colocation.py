from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from actors.config import EngineConfig, PlacementConfig, RolloutConfig
from actors.groups.colocation import PlacementGroupSpec, placement_group_specs, require_memory_share


def placement(ranks: int = 1, cpus: float = 1.0, gpus: float = 0.0) -> PlacementConfig:
    return PlacementConfig(ranks=ranks, cpus_per_rank=cpus, gpus_per_rank=gpus)


ROLES = {
    "policy": placement(2, 4.0, 1.0),
    "critic": placement(1, 2.0, 1.0),
    "reward": placement(1, 2.0),
    "rollout": placement(3, 1.0, 1.0),
}


def names(made: list[PlacementGroupSpec]) -> list[str]:
    return [spec.name for spec in made]


def test_every_role_has_one_site_in_each_form() -> None:
    assert names(placement_group_specs("none", ROLES)) == ["policy", "critic", "reward", "rollout"]
    assert names(placement_group_specs("all", ROLES)) == ["policy+critic+reward+rollout"]
    assert names(placement_group_specs((("reward", "policy"),), ROLES)) == ["reward+policy", "critic", "rollout"]


def test_a_role_that_is_apart_reserves_what_it_needs_and_asks_for_all_of_it() -> None:
    policy, _, reward, _ = placement_group_specs("none", ROLES)
    assert policy.bundles() == [{"CPU": 4.0, "GPU": 1.0}] * 2
    assert policy.shares("policy") == [{"CPU": 4.0, "GPU": 1.0}] * 2
    assert reward.bundles() == [{"CPU": 2.0}]


def test_a_bundle_is_the_largest_need_of_the_ranks_in_it_and_shares_are_parts_of_it() -> None:
    (spec,) = placement_group_specs("all", ROLES)
    assert spec.bundles() == [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}]
    assert spec.shares("policy") == [approx(4 * 4 / 9, 0.3333), approx(4 * 4 / 5, 0.5)]
    assert spec.shares("critic") == [approx(4 * 2 / 9, 0.3333)]
    assert spec.shares("reward") == [approx(4 * 2 / 9, 0.0)]
    assert spec.shares("rollout") == [approx(4 * 1 / 9, 0.3333), approx(4 * 1 / 5, 0.5), approx(1.0, 1.0)]


def approx(cpus: float, gpus: float) -> Mapping[str, Any]:
    """To Ray's ten-thousandths."""
    return {"CPU": pytest.approx(cpus, abs=1e-4), "GPU": pytest.approx(gpus, abs=1e-9)}


@pytest.mark.parametrize("cpus", [0.1, 0.25, 1.0, 3.0])
@pytest.mark.parametrize("roles", [2, 3, 6, 7])
def test_shares_fit_their_bundle_as_ray_counts(roles: int, cpus: float) -> None:
    spec = PlacementGroupSpec({f"role{n}": placement(1, cpus, 1.0) for n in range(roles)})
    (bundle,) = spec.bundles()
    assert bundle == {"CPU": cpus, "GPU": 1.0}
    for name, there in bundle.items():
        asked = sum(round(spec.shares(role)[0][name] * 1e4) for role in spec.roles)
        assert round(there * 1e4) - roles <= asked <= round(there * 1e4)


def test_what_needs_no_gpu_shares_none() -> None:
    spec = PlacementGroupSpec({"policy": placement(gpus=1.0), "reward_function": placement()})
    assert spec.shares("policy") == [{"CPU": 0.5, "GPU": 1.0}]
    assert spec.shares("reward_function") == [{"CPU": 0.5, "GPU": 0.0}]
    assert not spec.shares_gpu("policy")
    assert PlacementGroupSpec({"policy": placement(gpus=1.0), "critic": placement(gpus=1.0)}).shares_gpu("critic")


@pytest.mark.parametrize(
    ("colocate", "message"),
    [
        (
            (("policy", "critc"),),
            "colocate names 'critc', which is no role .* they start policy, critic, reward, rollout",
        ),
        ((("policy", "critic"), ("reward", "critic")), "colocate names critic 2 times"),
        ((("policy", "policy"),), "colocate names policy 2 times"),
        ((("policy",),), r"colocate has the group \[policy\]: name two roles or more"),
        (((),), r"colocate has the group \[\]"),
    ],
)
def test_groups_that_make_no_sense_are_refused(colocate: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        placement_group_specs(colocate, ROLES)


def test_ranks_with_several_gpus_share_none() -> None:
    roles = {"policy": placement(gpus=2.0), "critic": placement(gpus=1.0), "reward_function": placement()}
    with pytest.raises(
        ValueError, match=r"policy.placement.gpus_per_rank 2: colocate has policy\+critic\+reward_function share"
    ):
        placement_group_specs("all", roles)
    assert names(placement_group_specs((("policy", "reward_function"),), roles)) == ["policy+reward_function", "critic"]


def test_an_engine_that_shares_its_gpu_must_have_been_told_how_much_to_leave() -> None:
    spec = placement_group_specs("all", ROLES)[0]
    told = RolloutConfig(engine=EngineConfig(gpu_memory_utilization=0.85))
    require_memory_share(spec, told)
    for alone in placement_group_specs("none", ROLES):
        require_memory_share(alone, RolloutConfig())
    with pytest.raises(
        ValueError, match="gpu_memory_utilization is not given, .* share its GPU with policy and critic"
    ):
        require_memory_share(spec, RolloutConfig())


def test_a_part_of_a_gpu_is_enough_for_the_engine_on_it() -> None:
    half = placement(gpus=0.5)
    with pytest.raises(
        ValueError,
        match=r"gpus_per_rank 0\.5 shares .* rollout\.engine\.gpu_memory_utilization 0.85 .*: lower",
    ):
        RolloutConfig(placement=half)
    assert RolloutConfig(placement=half, engine=EngineConfig(gpu_memory_utilization=0.5)).placement == half
