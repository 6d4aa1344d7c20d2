"""Starts the roles of PPO, without their models, on a Ray of two nodes of its own, and prints where they are.

A program of its own, since a process has one Ray and the tests' is another. Arguments: a folder, then one set of `--a.b=value`
after another, each in one word. Prints a line of JSON for each: what is reserved, by placement group, and every rank.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from actors.groups import role_groups
from actors.roles.worker import Place, Worker
from cluster.head import Head
from cluster.liveness.heartbeat import DriverHeartbeat
from cluster.status.view import snapshot
from configs.base import read
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.ppo import role_groups_config

NODE = {"num_cpus": 3, "num_gpus": 3, "object_store_memory": 100 * 2**20}


class Bare(Worker):
    """Stands for a role's process: no threads are set and no heartbeats sent."""

    def __init__(self, threads: int, place: Place | None = None) -> None:
        pass

    def where(self) -> dict[str, Any]:
        context = ray.get_runtime_context()
        return {
            "node": context.get_node_id(),
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "share": context.get_assigned_resources(),
        }


class Empty(role_groups.RoleGroups):
    """The roles' processes and nothing in them."""

    def _load(self, started: Any) -> None:
        pass


def main(folder: str, *forms: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        role_groups.WORKERS = dict.fromkeys(role_groups.WORKERS, Bare)
        for number, form in enumerate(forms):
            config = read("ppo", STAGES, [f"--name=form-{number}", *form.split()])
            assert isinstance(config, PPOConfig)
            with DriverHeartbeat(config.name, "ppo", Path(folder)), Empty(role_groups_config(config, ())) as roles:
                print(json.dumps(found(config.name, roles)), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


def found(run: str, roles: role_groups.RoleGroups) -> dict[str, Any]:
    groups = {
        group["name"].removeprefix(f"{run}/"): [
            {"node": group["bundles_to_node_id"][index], **group["bundles"][index]}
            for index in sorted(group["bundles"])
        ]
        for group in placement_group_table().values()
        if group["name"].startswith(f"{run}/")
    }
    ranks = {
        f"{role}-{rank}": ray.get(actor.where.remote(), timeout=60)
        for role, group in roles.groups.items()
        for rank, actor in enumerate(group.actors)
    }
    with Head(ray.get_runtime_context().gcs_address) as head:
        (view,) = [view for view in snapshot(head).runs if view.name == run]
        for rank in view.ranks:
            if rank.role != "driver":
                ranks[f"{rank.role}-{rank.rank}"]["bundle"] = rank.bundle
    return {"groups": groups, "ranks": ranks}


if __name__ == "__main__":
    main(*sys.argv[1:])
