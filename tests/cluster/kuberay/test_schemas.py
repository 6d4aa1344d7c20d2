"""Mistakes that KubeRay's schemas refuse, planted one at a time; and how the schemas are made strict."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.kuberay.check import check
from cluster.kuberay.schemas import RaySchemas, strict, with_defaults
from configs.errors import ConfigError

CLUSTER_STAYS: dict[str, Any] = {"spec shutdownAfterJobFinishes": False, "spec ttlSecondsAfterFinished": 0}

MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    (
        "RayJob",
        {"spec shutdownAfterJobFinish": True},
        "spec.shutdownAfterJobFinish: no such field; did you mean shutdownAfterJobFinishes?",
    ),
    (
        "RayCluster",
        {"spec workerGroupSpecs 1 template spec tolerationz": []},
        "spec.workerGroupSpecs[1].template.spec.tolerationz: no such field; did you mean tolerations?",
    ),
    (
        "RayCluster",
        {"spec workerGroupSpecs 0 maxReplicas": "four"},
        "spec.workerGroupSpecs[0].maxReplicas: is 'four'; it must be of type integer",
    ),
    (
        "RayCluster",
        {"spec headGroupSpec rayStartParams num-cpus": 0},
        "spec.headGroupSpec.rayStartParams.num-cpus: is 0; it must be of type string",
    ),
    (
        "RayCluster",
        {"spec authOptions mode": "tokens"},
        "spec.authOptions.mode: is 'tokens'; give one of disabled, token",
    ),
    (
        "RayCluster",
        {"spec workerGroupSpecs 1 groupName": ...},
        "spec.workerGroupSpecs[1].groupName: is missing; add it",
    ),
    (
        "RayCluster",
        {"apiVersion": "ray.io/v2"},
        "apiVersion: is ray.io/v2, which is not served; use ray.io/v1, ray.io/v1alpha1",
    ),
    (
        "RayCluster",
        {"spec managedBy": "me"},
        "spec.managedBy: the managedBy field value must be either 'ray.io/kuberay-operator' or "
        "'kueue.x-k8s.io/multikueue' (rule: self in ['ray.io/kuberay-operator', 'kueue.x-k8s.io/multikueue']); "
        "change it",
    ),
    (
        "RayJob",
        {"spec deletionStrategy onSuccess policy": "DeleteCluster"},
        "spec.deletionStrategy: deletionStrategy requires either BOTH onSuccess and onFailure, OR the deletionRules "
        "field (cannot be empty) (rule: ((has(self.onSuccess) && has(self.onFailure)) || has(self.deletionRules))); "
        "change it",
    ),
    (
        "RayJob",
        {**CLUSTER_STAYS, "spec deletionStrategy deletionRules": [{"policy": "DeleteCluster", "condition": {}}]},
        "spec.deletionStrategy.deletionRules[0].condition: the deletion condition requires either the JobStatus or the "
        "JobDeploymentStatus field. (rule: has(self.jobStatus) || has(self.jobDeploymentStatus)); change it",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "words"), MISTAKES)
def test_a_mistake_is_refused_in_one_line(kind, changes, words, plant, schemas):
    manifest = plant(kind, changes)
    (line,) = map(str, check(manifest, schemas))
    assert line == f"here.yaml: {kind}/{manifest.name}: {words}"


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_what_is_right_is_accepted(kind, plant, schemas):
    assert check(plant(kind, {}), schemas) == []


def test_what_an_api_server_would_drop_is_refused():
    closed = strict({"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "string", "default": "x"}}})
    assert closed["additionalProperties"] is False
    assert closed["required"] == ["b"]
    assert closed["type"] == ["object", "null"]
    assert strict({"type": "object", "x-kubernetes-preserve-unknown-fields": True}) == {}


def test_quantities_may_be_numbers_or_text():
    field = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    assert strict(field) == {"type": ["integer", "string"]}


def test_defaults_are_filled_in_at_every_depth():
    group = {"type": "object", "properties": {"least": {"type": "integer", "default": 0}}}
    schema = {"type": "object", "properties": {"groups": {"type": "array", "items": group}}}
    assert with_defaults(schema, {"groups": [{}, {"least": 2}]}) == {"groups": [{"least": 0}, {"least": 2}]}


def test_a_folder_without_the_schemas_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no ray.io_rayclusters.yaml; give the folder of KubeRay's custom"):
        RaySchemas(str(tmp_path))
