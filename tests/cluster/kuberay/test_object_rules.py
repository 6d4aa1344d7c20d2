"""Mistakes in jobs, services and names that only the operator refuses, planted one at a time."""

from __future__ import annotations

from typing import Any

import pytest

DELETION = "spec deletionStrategy"
WHEN_FAILED = {"condition": {"jobStatus": "FAILED"}}
CLUSTER_STAYS: dict[str, Any] = {"spec shutdownAfterJobFinishes": False, "spec ttlSecondsAfterFinished": 0}
BORROWED: dict[str, Any] = {"spec rayClusterSpec": ..., "spec clusterSelector ray.io/cluster": "chimed"}
INCREMENTAL = "NewClusterWithIncrementalUpgrade"

MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    (
        "RayCluster",
        {"metadata name": "c" * 54},
        "metadata.name: has 54 characters; a RayCluster's has at most 53: shorten it",
    ),
    ("RayJob", {"metadata name": "c" * 48}, "metadata.name: has 48 characters; a RayJob's has at most 47: shorten it"),
    (
        "RayService",
        {"metadata name": "c" * 48},
        "metadata.name: has 48 characters; a RayService's has at most 47: shorten it",
    ),
    (
        "RayJob",
        {"metadata name": ..., "metadata generateName": "c" * 43},
        "metadata.name: has 48 characters; a RayJob's has at most 47: shorten it",
    ),
    (
        "RayJob",
        {"metadata name": "13b-ppo"},
        "metadata.name: is not a DNS label; use a-z, 0-9 and -, beginning with a letter and not ending with -",
    ),
    (
        "RayJob",
        {"spec submissionMode": "K8SJobMode"},
        "spec.submissionMode: is 'K8SJobMode'; give one of K8sJobMode, HTTPMode, SidecarMode, InteractiveMode",
    ),
    (
        "RayJob",
        {"spec submissionMode": "InteractiveMode"},
        "spec.backoffLimit: is not supported in InteractiveMode; remove it",
    ),
    (
        "RayJob",
        {"spec submissionMode": "SidecarMode", "spec submitterConfig backoffLimit": 1},
        "spec.submitterConfig: is not supported in SidecarMode; remove it or use K8sJobMode",
    ),
    ("RayJob", {"spec backoffLimit": -1}, "spec.backoffLimit: is -1; give 0 or more"),
    ("RayJob", {"spec activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds: is 0; give 1 or more"),
    ("RayJob", {"spec runtimeEnvYAML": "env_vars: {"}, "spec.runtimeEnvYAML: is not valid YAML; repair it"),
    (
        "RayJob",
        {"spec runtimeEnvYAML": "pip"},
        "spec.runtimeEnvYAML: is not a mapping; write it as YAML keys and values",
    ),
    (
        "RayJob",
        {"spec rayClusterSpec": ...},
        "spec.rayClusterSpec: is missing; describe the job's Ray cluster, or name one by clusterSelector",
    ),
    ("RayJob", BORROWED, "spec.backoffLimit: cannot be used with clusterSelector; remove one of the two"),
    (
        "RayJob",
        {"spec shutdownAfterJobFinishes": False},
        "spec.ttlSecondsAfterFinished: needs shutdownAfterJobFinishes: true; set that, or remove this",
    ),
    (
        "RayJob",
        {**CLUSTER_STAYS, "spec suspend": True},
        "spec.suspend: needs shutdownAfterJobFinishes: true; set that, or remove this",
    ),
    (
        "RayJob",
        {f"{DELETION} deletionRules": [{"policy": "DeleteSelf", **WHEN_FAILED}]},
        "spec.deletionStrategy.deletionRules: cannot be used with shutdownAfterJobFinishes: true; remove one of the two",
    ),
    (
        "RayJob",
        {**CLUSTER_STAYS, f"{DELETION} deletionRules": [{"policy": "DeleteWorkers", **WHEN_FAILED}]},
        "spec.deletionStrategy.deletionRules[0].policy: DeleteWorkers cannot be used with autoscaling; "
        "use DeleteCluster, or turn autoscaling off",
    ),
    (
        "RayJob",
        {f"{DELETION} onSuccess policy": "DeleteCluster", f"{DELETION} onFailure policy": "DeleteWorkers"},
        "spec.deletionStrategy.onFailure.policy: DeleteWorkers cannot be used with autoscaling; "
        "use DeleteCluster, or turn autoscaling off",
    ),
    (
        "RayJob",
        {f"{DELETION} onSuccess policy": "DeleteNone", f"{DELETION} onFailure policy": "DeleteCluster"},
        "spec.deletionStrategy.onSuccess.policy: DeleteNone contradicts shutdownAfterJobFinishes: true; "
        "remove one of the two",
    ),
    (
        "RayJob",
        {
            **CLUSTER_STAYS,
            **BORROWED,
            "spec backoffLimit": 0,
            f"{DELETION} deletionRules": [{"policy": "DeleteCluster", **WHEN_FAILED}],
        },
        "spec.deletionStrategy.deletionRules[0].policy: DeleteCluster cannot be used with clusterSelector; "
        "use DeleteSelf or DeleteNone",
    ),
    (
        "RayService",
        {"spec upgradeStrategy type": "Rolling"},
        "spec.upgradeStrategy.type: is 'Rolling'; give one of NewCluster, NewClusterWithIncrementalUpgrade, None",
    ),
    (
        "RayService",
        {"spec upgradeStrategy type": INCREMENTAL},
        "spec.upgradeStrategy.clusterUpgradeOptions.gatewayClassName: is missing; name a Gateway class, "
        "or use NewCluster",
    ),
    (
        "RayService",
        {
            "spec upgradeStrategy": {"type": INCREMENTAL, "clusterUpgradeOptions": {"gatewayClassName": "istio"}},
            "spec rayClusterConfig enableInTreeAutoscaling": False,
        },
        "spec.upgradeStrategy.type: needs autoscaling; set enableInTreeAutoscaling: true, or use NewCluster",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "words"), MISTAKES)
def test_a_mistake_is_refused_in_one_line(kind, changes, words, refused):
    assert refused(kind, changes) == [words]


@pytest.mark.parametrize("mode", ["K8sJobMode", "HTTPMode", "SidecarMode"])
def test_modes_that_exist_are_accepted(mode, refused):
    assert refused("RayJob", {"spec submissionMode": mode}) == []


@pytest.mark.parametrize(("kind", "length"), [("RayCluster", 53), ("RayJob", 47), ("RayService", 47)])
def test_the_longest_names_are_accepted(kind, length, refused):
    assert refused(kind, {"metadata name": "c" * length}) == []
