"""Which roles share a placement group, and which part of its bundle each rank reserves. Imports no Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator

from actors.config import PlacementConfig, RolloutConfig

if TYPE_CHECKING:
    from cluster.placement import Bundle


def _groups(given: Any) -> Any:
    """Converts lists to tuples. Raises one ValueError for invalid groups; pydantic would report each union member."""
    if given in ("none", "all"):
        return given
    if isinstance(given, list | tuple) and given and all(isinstance(group, list | tuple) for group in given):
        groups = tuple(tuple(group) for group in given)
        if all(isinstance(role, str) for group in groups for role in group):
            return groups
    raise ValueError("must be none, all or a list of groups of roles such as [[policy, critic], [reference, reward]]")


Colocate: TypeAlias = Annotated[Literal["none", "all"] | tuple[tuple[str, ...], ...], BeforeValidator(_groups)]
"""No roles share a placement group, all roles share one, or the groups of roles that each share one."""

_RAY_STEP = 1e-4
"""Ray rounds resources to ten-thousandths. Shares are rounded down, so that all of them fit their bundle."""


@dataclass(frozen=True)
class PlacementGroupSpec:
    """Specification of one placement group and the roles in it: a single role, or several that share it.

    Bundle i holds rank i of each role. It is as large as the largest of their requirements, not as their sum.
    """

    roles: Mapping[str, PlacementConfig]

    @property
    def name(self) -> str:
        """Name of the group, e.g. `policy+critic`."""
        return "+".join(self.roles)

    def bundles(self) -> list[Bundle]:
        """Returns the bundles to reserve: one for each rank of the role with the most ranks."""
        ranks = max(placement.ranks for placement in self.roles.values())
        return [
            {name: max(amounts) for name, amounts in self._needs(rank).items() if any(amounts)} for rank in range(ranks)
        ]

    def shares(self, role: str) -> list[Bundle]:
        """Returns what each rank of `role` reserves of its bundle: a part in proportion to its requirement."""
        placement = self.roles[role]
        return [
            {name: _part(amount, self._needs(rank)[name]) for name, amount in _need(placement).items()}
            for rank in range(placement.ranks)
        ]

    def shares_gpu(self, role: str) -> bool:
        """Returns whether `role` shares its GPUs with other roles."""
        return bool(self.roles[role].gpus_per_rank and len(self.on_gpu()) > 1)

    def sharing(self) -> list[str]:
        """Returns the roles with a model that share its GPUs or, if it has none, its CPUs; at least two, or none."""
        roles = self.on_gpu() or [role for role in self.roles if role != "reward_function"]
        return roles if len(roles) > 1 else []

    def on_gpu(self) -> list[str]:
        """Returns the roles that have GPUs."""
        return [role for role, placement in self.roles.items() if placement.gpus_per_rank]

    def _needs(self, rank: int) -> dict[str, list[float]]:
        """Returns, by resource, the requirement of every role that has a rank `rank`."""
        needs = [_need(placement) for placement in self.roles.values() if rank < placement.ranks]
        return {name: [need[name] for need in needs] for name in needs[0]}


def placement_group_specs(colocate: Colocate, placements: Mapping[str, PlacementConfig]) -> list[PlacementGroupSpec]:
    """Returns the placement groups of the roles in `placements`; every role is in exactly one.

    Raises:
        ValueError: a group has fewer than two roles, an unknown role, or a role of another group; or its roles cannot
            share a GPU. The message is one line and names the key.
    """
    groups = (tuple(placements),) if colocate == "all" else () if colocate == "none" else colocate
    for group in groups:
        if len(group) < 2:
            raise ValueError(
                f"colocate has the group [{', '.join(group)}]: name two roles or more; a role in no group is apart"
            )
        for role in group:
            if role not in placements:
                raise ValueError(
                    f"colocate names '{role}', which is no role that these settings start; "
                    f"they start {', '.join(placements)}"
                )
    for role, count in Counter(role for group in groups for role in group).items():
        if count > 1:
            raise ValueError(f"colocate names {role} {count} times: a role has one place; name it once")
    shared = {role for group in groups for role in group}
    alone = [(role,) for role in placements if role not in shared]
    made = [PlacementGroupSpec({role: placements[role] for role in group}) for group in (*groups, *alone)]
    for spec in made:
        for role in spec.on_gpu():
            if spec.shares_gpu(role) and placements[role].gpus_per_rank > 1:
                raise ValueError(
                    f"{role}.placement.gpus_per_rank {placements[role].gpus_per_rank:g}: colocate has {spec.name} share "
                    f"one GPU a rank; set it to 1"
                )
    return made


def require_memory_share(spec: PlacementGroupSpec, rollout: RolloutConfig) -> None:
    """Requires an explicit `gpu_memory_utilization` where the engine shares its GPU with other roles at the same time.

    The default would leave the other roles too little memory.

    Raises:
        ValueError: the setting is not given. The message is one line and names the key.
    """
    if "rollout" not in spec.roles or not spec.shares_gpu("rollout"):
        return
    if "gpu_memory_utilization" not in rollout.engine.model_fields_set:
        others = " and ".join(role for role in spec.on_gpu() if role != "rollout")
        raise ValueError(
            f"rollout.engine.gpu_memory_utilization is not given, and colocate has the engine share its GPU with "
            f"{others}: give the part of the GPU's memory that the engine may keep, e.g. 0.4"
        )


def _need(placement: PlacementConfig) -> Bundle:
    return {"CPU": placement.cpus_per_rank, "GPU": placement.gpus_per_rank}


def _part(need: float, needs: list[float]) -> float:
    """Returns max(needs) * need / sum(needs), rounded down to Ray's resolution."""
    if not need:
        return 0.0
    steps = max(needs) * need / sum(needs) / _RAY_STEP
    return math.floor(steps + 1e-6) * _RAY_STEP  # 1e-6 compensates floating-point error
