"""Rules for jobs, services, and names that KubeRay's operator enforces beyond its schemas."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from cluster.kuberay.clusters import Found, ray_cluster, ray_job
from cluster.kuberay.manifests import Manifest, mapping, sequence
from configs.recipe import Key

# The operator appends suffixes, and a name in Kubernetes has at most 63 characters.
_LONGEST_NAMES = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}
_SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
_UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
_COUNTS = {"ttlSecondsAfterFinished": 0, "backoffLimit": 0, "activeDeadlineSeconds": 1, "preRunningDeadlineSeconds": 1}


def names(manifest: Manifest) -> Iterator[Found]:
    """Checks that a name is a DNS label that begins with a letter, and leaves room for the operator's suffixes."""
    longest = _LONGEST_NAMES.get(manifest.kind)
    if longest is None:
        return
    beginning = manifest.at("metadata", "generateName")
    name = f"{beginning}xxxxx" if beginning and not manifest.at("metadata", "name") else manifest.name
    if len(name) > longest:
        yield (
            ("metadata", "name"),
            f"has {len(name)} characters; a {manifest.kind}'s has at most {longest}: shorten it",
        )
    elif not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield (
            ("metadata", "name"),
            "is not a DNS label; use a-z, 0-9 and -, beginning with a letter and not ending with -",
        )


def submission(manifest: Manifest) -> Iterator[Found]:
    """Checks that a job's submission mode supports its other fields, and that counts and runtime_env are valid."""
    key, job = ray_job(manifest) or ((), {})
    mode = job.get("submissionMode", "K8sJobMode")
    if mode not in _SUBMISSION_MODES:
        yield (*key, "submissionMode"), f"is {mode!r}; give one of {', '.join(_SUBMISSION_MODES)}"
    if mode == "SidecarMode":
        for name in ("submitterPodTemplate", "submitterConfig", "clusterSelector"):
            if job.get(name):
                yield (*key, name), "is not supported in SidecarMode; remove it or use K8sJobMode"
    if mode == "InteractiveMode" and job.get("backoffLimit"):
        yield (*key, "backoffLimit"), "is not supported in InteractiveMode; remove it"
    for name, least in _COUNTS.items():
        value = job.get(name)
        if isinstance(value, int) and value < least:
            yield (*key, name), f"is {value}; give {least} or more"
    try:
        if not isinstance(yaml.safe_load(job.get("runtimeEnvYAML") or "{}"), dict):
            yield (*key, "runtimeEnvYAML"), "is not a mapping; write it as YAML keys and values"
    except yaml.YAMLError:
        yield (*key, "runtimeEnvYAML"), "is not valid YAML; repair it"


def where_jobs_run(manifest: Manifest) -> Iterator[Found]:
    """Checks that a job describes a Ray cluster, or selects one and sets neither `suspend` nor `backoffLimit`."""
    found = ray_job(manifest)
    if found is None:
        return
    key, job = found
    if job.get("clusterSelector"):
        for name in ("suspend", "backoffLimit"):
            if job.get(name):
                yield (*key, name), "cannot be used with clusterSelector; remove one of the two"
    elif job.get("rayClusterSpec") is None:
        yield (*key, "rayClusterSpec"), "is missing; describe the job's Ray cluster, or name one by clusterSelector"


def deletion(manifest: Manifest) -> Iterator[Found]:
    """Checks that the settings for deleting the Ray cluster after the job do not contradict each other."""
    key, job = ray_job(manifest) or ((), {})
    strategy = mapping(job.get("deletionStrategy"))
    rules = sequence(strategy.get("deletionRules"))
    shutdown = job.get("shutdownAfterJobFinishes") is True
    if rules and shutdown:
        yield (
            (*key, "deletionStrategy", "deletionRules"),
            "cannot be used with shutdownAfterJobFinishes: true; remove one of the two",
        )
    for name in ("ttlSecondsAfterFinished", "suspend"):
        value = job.get(name)
        if value and not shutdown and not (isinstance(value, int) and value < 0):
            yield (*key, name), "needs shutdownAfterJobFinishes: true; set that, or remove this"
    ray = ray_cluster(manifest)
    for place, policy in _policies((*key, "deletionStrategy"), strategy):
        if policy == "DeleteWorkers" and ray and ray.autoscaling:
            yield place, "DeleteWorkers cannot be used with autoscaling; use DeleteCluster, or turn autoscaling off"
        if policy in ("DeleteWorkers", "DeleteCluster") and job.get("clusterSelector"):
            yield place, f"{policy} cannot be used with clusterSelector; use DeleteSelf or DeleteNone"
        if policy == "DeleteNone" and shutdown and not rules:
            yield place, "DeleteNone contradicts shutdownAfterJobFinishes: true; remove one of the two"


def upgrades(manifest: Manifest) -> Iterator[Found]:
    """Checks that a RayService's upgrade strategy has a known type, and that its requirements are met.

    Also checks that the head service has no name, because the operator chooses it.
    """
    if manifest.kind != "RayService":
        return
    strategy = mapping(manifest.at("spec", "upgradeStrategy"))
    kind = strategy.get("type", "NewCluster")
    key: Key = ("spec", "upgradeStrategy")
    if kind not in _UPGRADES:
        yield (*key, "type"), f"is {kind!r}; give one of {', '.join(_UPGRADES)}"
    if kind == "NewClusterWithIncrementalUpgrade":
        ray = ray_cluster(manifest)
        if ray and not ray.autoscaling:
            yield (*key, "type"), "needs autoscaling; set enableInTreeAutoscaling: true, or use NewCluster"
        if not mapping(strategy.get("clusterUpgradeOptions")).get("gatewayClassName"):
            yield (
                (*key, "clusterUpgradeOptions", "gatewayClassName"),
                "is missing; name a Gateway class, or use NewCluster",
            )
    if manifest.at("spec", "rayClusterConfig", "headGroupSpec", "headService", "metadata", "name"):
        yield (
            ("spec", "rayClusterConfig", "headGroupSpec", "headService", "metadata", "name"),
            "is chosen by the operator for a RayService; remove it",
        )


OBJECT_RULES: tuple[Callable[[Manifest], Iterator[Found]], ...] = (
    names,
    submission,
    where_jobs_run,
    deletion,
    upgrades,
)


def _policies(key: Key, strategy: dict[str, Any]) -> Iterator[tuple[Key, Any]]:
    for index, rule in enumerate(sequence(strategy.get("deletionRules"))):
        yield (*key, "deletionRules", index, "policy"), mapping(rule).get("policy")
    for name in ("onSuccess", "onFailure"):
        yield (*key, name, "policy"), mapping(strategy.get(name)).get("policy")
