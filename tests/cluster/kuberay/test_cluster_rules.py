"""Mistakes in a Ray cluster that only the operator refuses, planted one at a time."""

from __future__ import annotations

from typing import Any

import pytest

CONTAINER = "template spec containers 0"
HEAD_ENV = f"spec headGroupSpec {CONTAINER} env 1"
TRAINER = "spec workerGroupSpecs 1"

MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    (
        "RayCluster",
        {f"{TRAINER} minReplicas": 3},
        "spec.workerGroupSpecs[1].minReplicas: is 3, more than maxReplicas 2; lower it or raise maxReplicas",
    ),
    (
        "RayJob",
        {"spec rayClusterSpec workerGroupSpecs 0 minReplicas": -1},
        "spec.rayClusterSpec.workerGroupSpecs[0].minReplicas: is -1; give 0 or more",
    ),
    (
        "RayCluster",
        {f"{TRAINER} template spec restartPolicy": "Always"},
        "spec.workerGroupSpecs[1].template.spec.restartPolicy: is Always, but autoscaler v2 replaces pods; "
        "set it to Never",
    ),
    (
        "RayService",
        {"spec rayClusterConfig headGroupSpec template spec restartPolicy": "OnFailure"},
        "spec.rayClusterConfig.headGroupSpec.template.spec.restartPolicy: is OnFailure, but autoscaler v2 replaces "
        "pods; set it to Never",
    ),
    (
        "RayCluster",
        {"spec headGroupSpec resources CPU": "0"},
        "spec.headGroupSpec.resources: is set together with rayStartParams.num-cpus, which sets the same value; keep one of the two",
    ),
    (
        "RayCluster",
        {"spec workerGroupSpecs 2 rayStartParams labels": "role=rollout"},
        "spec.workerGroupSpecs[2].rayStartParams.labels: is not read by the operator; use the group's own field labels",
    ),
    (
        "RayCluster",
        {f"{TRAINER} {CONTAINER} resources requests memory": "600Gi"},
        "spec.workerGroupSpecs[1].template.spec.containers[0].resources.requests.memory: is 600Gi, more than the limit "
        "512Gi; lower it or raise the limit",
    ),
    (
        "RayCluster",
        {f"{TRAINER} {CONTAINER} resources requests cpu": "64001m"},
        "spec.workerGroupSpecs[1].template.spec.containers[0].resources.requests.cpu: is 64001m, more than the limit "
        "64; lower it or raise the limit",
    ),
    (
        "RayCluster",
        {"spec rayVersion": "2.51.1"},
        "spec.rayVersion: is '2.51.1', but authOptions.mode token needs 2.52.0 or later; name the version in the image",
    ),
    (
        "RayJob",
        {"spec rayClusterSpec rayVersion": ...},
        "spec.rayClusterSpec.rayVersion: is not given, but authOptions.mode token needs 2.52.0 or later; "
        "name the version in the image",
    ),
    (
        "RayCluster",
        {"spec authOptions": {"mode": "disabled", "enableK8sTokenAuth": True}},
        "spec.authOptions.enableK8sTokenAuth: needs authOptions.mode token; set the mode",
    ),
    (
        "RayCluster",
        {HEAD_ENV: {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}},
        "spec.headGroupSpec.template.spec.containers[0].env[1]: RAY_REDIS_ADDRESS is set without "
        "gcsFaultToleranceOptions; remove it and use gcsFaultToleranceOptions.redisAddress",
    ),
    (
        "RayCluster",
        {
            HEAD_ENV: {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"},
            "spec gcsFaultToleranceOptions redisAddress": "redis:6379",
        },
        "spec.headGroupSpec.template.spec.containers[0].env[1]: RAY_REDIS_ADDRESS is set together with "
        "gcsFaultToleranceOptions; remove it and use gcsFaultToleranceOptions.redisAddress",
    ),
    (
        "RayCluster",
        {
            "spec headGroupSpec rayStartParams redis-password": "secret",
            "spec gcsFaultToleranceOptions redisAddress": "redis:6379",
        },
        "spec.headGroupSpec.rayStartParams.redis-password: is refused by the operator; "
        "remove it and use gcsFaultToleranceOptions.redisPassword",
    ),
    (
        "RayCluster",
        {HEAD_ENV: {"name": "RAY_enable_autoscaler_v2", "value": "1"}},
        "spec.headGroupSpec.template.spec.containers[0].env[1]: RAY_enable_autoscaler_v2 is set together with "
        "autoscalerOptions.version; remove the variable",
    ),
    (
        "RayCluster",
        {HEAD_ENV: {"name": "RAY_enable_autoscaler_v2", "value": "true"}, "spec enableInTreeAutoscaling": False},
        "spec.headGroupSpec.template.spec.containers[0].env[1]: RAY_enable_autoscaler_v2 is set without autoscaling; "
        "set enableInTreeAutoscaling: true",
    ),
    (
        "RayCluster",
        {"spec autoscalerOptions idleTimeoutSeconds": -1},
        "spec.autoscalerOptions.idleTimeoutSeconds: is -1; give seconds, 0 or more",
    ),
    (
        "RayCluster",
        {"spec autoscalerOptions version": "v1", f"{TRAINER} idleTimeoutSeconds": 60},
        "spec.workerGroupSpecs[1].idleTimeoutSeconds: needs autoscaler v2; set autoscalerOptions.version: v2",
    ),
    (
        "RayCluster",
        {f"{TRAINER} suspend": True},
        "spec.workerGroupSpecs[1].suspend: cannot be used with autoscaling; remove it or turn autoscaling off",
    ),
    (
        "RayCluster",
        {f"{TRAINER} priority": 2, "spec rayVersion": "2.55.0"},
        "spec.workerGroupSpecs[1].priority: needs autoscalerOptions.version v2 and rayVersion 2.56.0 or later; "
        "set both or remove it",
    ),
    (
        "RayCluster",
        {"spec networkPolicy mode": "DenyAll"},
        "spec.networkPolicy: needs the operator's gate RayClusterNetworkPolicy, which is off; "
        "apply your own NetworkPolicy",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "words"), MISTAKES)
def test_a_mistake_is_refused_in_one_line(kind, changes, words, refused):
    assert refused(kind, changes) == [words]


@pytest.mark.parametrize(("kind", "changes", "words"), MISTAKES)
def test_the_schemas_would_have_accepted_it(kind, changes, words, plant, schemas):
    assert list(schemas.problems(plant(kind, changes))) == []


def test_without_autoscaling_pods_may_restart(refused):
    changes = {"spec enableInTreeAutoscaling": False, f"{TRAINER} template spec restartPolicy": "Always"}
    assert refused("RayCluster", changes) == []
