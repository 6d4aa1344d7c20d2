"""Downloads Hub models on every node of a cluster, once per node, before any role reserves resources."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from actors.model_folder.source import repository_of, snapshot, uses_modelscope
from configs.errors import ConfigError
from configs.logs import configure
from data.hub import Repository, pinned

logger = logging.getLogger(__name__)


def fetch(names: Sequence[str], same_folder: bool = False) -> None:
    """Downloads the Hub models among `names` on all other nodes in parallel, and waits for them.

    Nodes that share a cache folder (`HF_HOME`) find the models there. Nodes that join the cluster later need a shared
    cache folder.

    Args:
        names: names of models; local folders are skipped.
        same_folder: whether every node must have the models in the same folder as this one.

    Raises:
        ConfigError: a node cannot download a model or has it in another folder; the message names the node's address.
    """
    import ray
    from huggingface_hub import constants
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    wanted = [str(_pinned(repository)) for name in names if (repository := repository_of(name)) is not None]
    if not wanted or not ray.is_initialized():
        return
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not others:
        return
    logger.info("downloading %s on %d more nodes", ", ".join(wanted), len(others))
    online = {"HF_HUB_OFFLINE": str(int(constants.HF_HUB_OFFLINE))}  # roles are offline; see cluster/environment.py
    tasks = []
    for node in others:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": strategy, "runtime_env": {"env_vars": online}}
        tasks.append((node["NodeManagerAddress"], ray.remote(_fetch_there).options(**options).remote(wanted)))
    for address, task in tasks:
        try:
            folders = ray.get(task)
        except RayError as error:
            reason = error.cause if isinstance(error, RayTaskError) else error
            raise ConfigError(f"node {address}: {reason}") from error
        if same_folder and folders != _fetch(wanted):
            raise ConfigError(
                f"node {address} keeps models in {folders[0]}, unlike this one; set HF_HOME alike on all nodes"
            )


def _pinned(repository: Repository) -> Repository:
    """Returns the repository pinned to the commit that this node has; unpinned on ModelScope."""
    return repository if uses_modelscope() else pinned(repository)


def _fetch_there(names: Sequence[str]) -> list[str]:
    """Ray task: runs `_fetch` on the node that it is scheduled on."""
    configure("download")
    return _fetch(names)


def _fetch(names: Sequence[str]) -> list[str]:
    """Downloads the repositories among `names`; returns their folders."""
    repositories = [repository for name in names if (repository := repository_of(name)) is not None]
    return [str(snapshot(repository, "model")) for repository in repositories]
