"""Mistakes in Kubernetes' own kinds, and in the parts of Ray's kinds that are Kubernetes' own."""

from __future__ import annotations

from typing import Any

import pytest

MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("NetworkPolicy", {"spec egres": []}, "spec.egres: no such field; did you mean egress?"),
    (
        "NetworkPolicy",
        {"spec egress 1 ports 0 protocoll": "UDP"},
        "spec.egress[1].ports[0].protocoll: no such field; did you mean protocol?",
    ),
    (
        "NetworkPolicy",
        {"kind": "NetworkPolice"},
        "kind: networking.k8s.io/v1 NetworkPolice is not a kind of Kubernetes 1.32; correct it, "
        "or check this object by other means",
    ),
    (
        "PersistentVolumeClaim",
        {"spec accessModes": "ReadWriteMany"},
        "spec.accessModes: is 'ReadWriteMany'; it must be of type array",
    ),
    ("RayJob", {"metadata label": {}}, "metadata.label: no such field; did you mean labels?"),
    (
        "RayCluster",
        {"spec workerGroupSpecs 1 template spec tolerationz": []},
        "spec.workerGroupSpecs[1].template.spec.tolerationz: no such field; did you mean tolerations?",
    ),
    (
        "RayCluster",
        {"spec headGroupSpec template spec containers 0 ports 0 containerPort": "6379"},
        "spec.headGroupSpec.template.spec.containers[0].ports[0].containerPort: is '6379'; it must be of type integer",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "words"), MISTAKES)
def test_a_mistake_is_refused_in_one_line(kind, changes, words, refused):
    assert refused(kind, changes) == [words]


@pytest.mark.parametrize(
    "kind", ["NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget", "RayCluster", "RayJob", "RayService"]
)
def test_what_is_right_is_accepted(kind, refused):
    assert refused(kind, {}) == []
