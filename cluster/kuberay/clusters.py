"""The Ray cluster inside a RayCluster, RayJob, RayService or RayCronJob, and its groups of pods."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.kuberay.manifests import Manifest, mapping, sequence
from configs.recipe import Key

CLUSTER_KEYS: dict[str, Key] = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
JOB_KEYS: dict[str, Key] = {"RayJob": ("spec",), "RayCronJob": ("spec", "jobTemplate")}

Found = tuple[Key, str]
"""Where something is wrong in an object, and the words: what is wrong; what to do."""


@dataclass(frozen=True)
class Group:
    """The head, or a group of workers."""

    key: Key
    name: str
    spec: dict[str, Any]

    @property
    def is_head(self) -> bool:
        """Whether it is the head's."""
        return self.key[-1] == "headGroupSpec"

    @property
    def pod_key(self) -> Key:
        return (*self.key, "template", "spec")

    @property
    def pod(self) -> dict[str, Any]:
        """The pod's specification."""
        return mapping(mapping(self.spec.get("template")).get("spec"))

    def containers(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Each container with its key; Ray's own is the first."""
        for index, container in enumerate(sequence(self.pod.get("containers"))):
            yield (*self.pod_key, "containers", index), mapping(container)

    def environment(self) -> dict[str, tuple[Key, Any]]:
        """Variables of Ray's container: key and value (None for one that comes from elsewhere)."""
        found: dict[str, tuple[Key, Any]] = {}
        for key, container in list(self.containers())[:1]:
            for index, variable in enumerate(sequence(container.get("env"))):
                found[str(mapping(variable).get("name"))] = (*key, "env", index), mapping(variable).get("value")
        return found


@dataclass(frozen=True)
class RayClusterView:
    """A Ray cluster's specification, wherever it stands."""

    key: Key
    spec: dict[str, Any]

    @property
    def autoscaling(self) -> bool:
        """Whether the autoscaler is on."""
        return self.spec.get("enableInTreeAutoscaling") is True

    @property
    def autoscaler(self) -> dict[str, Any]:
        return mapping(self.spec.get("autoscalerOptions"))

    @property
    def head(self) -> Group:
        """The head's group."""
        return Group((*self.key, "headGroupSpec"), "head", mapping(self.spec.get("headGroupSpec")))

    @property
    def workers(self) -> list[Group]:
        """The worker groups."""
        key = (*self.key, "workerGroupSpecs")
        specs = [mapping(spec) for spec in sequence(self.spec.get("workerGroupSpecs"))]
        return [Group((*key, index), str(spec.get("groupName")), spec) for index, spec in enumerate(specs)]

    @property
    def groups(self) -> list[Group]:
        """All groups, the head's first."""
        return [self.head, *self.workers]


def ray_cluster(manifest: Manifest) -> RayClusterView | None:
    """The Ray cluster that an object describes; None if it describes none."""
    key = CLUSTER_KEYS.get(manifest.kind)
    spec = manifest.at(*key) if key else None
    return RayClusterView(key, spec) if key and isinstance(spec, dict) else None


def ray_job(manifest: Manifest) -> tuple[Key, dict[str, Any]] | None:
    """The job that an object describes, with its key; None if it describes none."""
    key = JOB_KEYS.get(manifest.kind)
    return (key, mapping(manifest.at(*key))) if key else None


def version(text: Any) -> tuple[int, ...] | None:
    """`2.60.0` as (2, 60, 0); None for anything else."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?.*", text) if isinstance(text, str) else None
    return tuple(int(part or 0) for part in found.groups()) if found else None
