"""The Ray cluster inside a RayCluster, RayJob, RayService, or RayCronJob, and its groups of pods."""

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
"""A problem: the key in the object, and a text that states what is wrong and what to do."""


@dataclass(frozen=True)
class Group:
    """The head group, or a worker group."""

    key: Key
    name: str
    spec: dict[str, Any]

    @property
    def is_head(self) -> bool:
        """Whether this is the head group."""
        return self.key[-1] == "headGroupSpec"

    @property
    def pod_key(self) -> Key:
        """Key of the pod's specification."""
        return (*self.key, "template", "spec")

    @property
    def pod(self) -> dict[str, Any]:
        """The pod's specification."""
        return mapping(mapping(self.spec.get("template")).get("spec"))

    def containers(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Yields each container with its key. The first one runs Ray."""
        for index, container in enumerate(sequence(self.pod.get("containers"))):
            yield (*self.pod_key, "containers", index), mapping(container)

    def environment(self) -> dict[str, tuple[Key, Any]]:
        """Returns the Ray container's environment variables by name: key and value (None for `valueFrom`) of each."""
        found: dict[str, tuple[Key, Any]] = {}
        for key, container in list(self.containers())[:1]:
            for index, variable in enumerate(sequence(container.get("env"))):
                found[str(mapping(variable).get("name"))] = (*key, "env", index), mapping(variable).get("value")
        return found


@dataclass(frozen=True)
class RayClusterView:
    """A Ray cluster's specification, and its key in the object that contains it."""

    key: Key
    spec: dict[str, Any]

    @property
    def autoscaling(self) -> bool:
        """Whether the autoscaler is on."""
        return self.spec.get("enableInTreeAutoscaling") is True

    @property
    def autoscaler(self) -> dict[str, Any]:
        """The autoscaler's options."""
        return mapping(self.spec.get("autoscalerOptions"))

    @property
    def head(self) -> Group:
        """The head group."""
        return Group((*self.key, "headGroupSpec"), "head", mapping(self.spec.get("headGroupSpec")))

    @property
    def workers(self) -> list[Group]:
        """The worker groups."""
        key = (*self.key, "workerGroupSpecs")
        specs = [mapping(spec) for spec in sequence(self.spec.get("workerGroupSpecs"))]
        return [Group((*key, index), str(spec.get("groupName")), spec) for index, spec in enumerate(specs)]

    @property
    def groups(self) -> list[Group]:
        """All groups, the head group first."""
        return [self.head, *self.workers]


def ray_cluster(manifest: Manifest) -> RayClusterView | None:
    """Returns the Ray cluster that an object describes; None if it describes no cluster."""
    key = CLUSTER_KEYS.get(manifest.kind)
    spec = manifest.at(*key) if key else None
    return RayClusterView(key, spec) if key and isinstance(spec, dict) else None


def ray_job(manifest: Manifest) -> tuple[Key, dict[str, Any]] | None:
    """Returns the key and specification of the job that an object describes; None if it describes no job."""
    key = JOB_KEYS.get(manifest.kind)
    return (key, mapping(manifest.at(*key))) if key else None


def version(text: Any) -> tuple[int, ...] | None:
    """Parses a version such as `2.60.0` into (2, 60, 0); returns None if `text` is not a version."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?.*", text) if isinstance(text, str) else None
    return tuple(int(part or 0) for part in found.groups()) if found else None
