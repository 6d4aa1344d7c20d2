"""Mistakes that the operator accepts and a run here would suffer from, planted one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SPEC = "spec rayClusterSpec"
TRAINER = f"{SPEC} workerGroupSpecs 1"
CONTAINER = "template spec containers 0"
IN_TRAINER = "spec.rayClusterSpec.workerGroupSpecs[1].template.spec.containers[0]"
KUEUE: dict[str, Any] = {"metadata labels kueue.x-k8s.io/queue-name": "chimed", f"{SPEC} workerGroupSpecs": []}
VOLCANO: dict[str, Any] = {
    "metadata labels volcano.sh/queue-name": "chimed",
    f"{SPEC} workerGroupSpecs 0 maxReplicas": 0,
    f"{SPEC} workerGroupSpecs 2 maxReplicas": 0,
}

MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    (
        "RayJob",
        {f"{TRAINER} {CONTAINER} resources": {"requests": {"nvidia.com/gpu": 8}}},
        f"{IN_TRAINER}.resources.requests.nvidia.com/gpu: is 8, but the limit is not given; write GPUs as limits only",
    ),
    (
        "RayJob",
        {f"{TRAINER} {CONTAINER} resources requests nvidia.com/gpu": "4"},
        f"{IN_TRAINER}.resources.requests.nvidia.com/gpu: is 4, but the limit is 8; write GPUs as limits only",
    ),
    (
        "RayCluster",
        {"spec autoscalerOptions version": ...},
        "spec.autoscalerOptions.version: is not given; set it to v2",
    ),
    (
        "RayCluster",
        {"spec authOptions": ...},
        "spec.authOptions.mode: is not given, and without tokens anyone who reaches the dashboard can run code; "
        "set it to token",
    ),
    (
        "RayJob",
        {f"{TRAINER} {CONTAINER} image": "rayproject/ray:2.55.0-py311-gpu"},
        f"{IN_TRAINER}.image: has ray 2.55.0, but rayVersion is 2.60.0; make them the same",
    ),
    (
        "RayJob",
        {f"{TRAINER} {CONTAINER} image": "registry.example.com/chimed-rlhf:0.1.0-ray2.59.0-gpu"},
        f"{IN_TRAINER}.image: has ray 2.59.0, but rayVersion is 2.60.0; make them the same",
    ),
    (
        "RayJob",
        {"spec entrypoint": "python -m trainers.ppo --config configs/labtop.yaml"},
        f"spec.entrypoint: names the recipe configs/labtop.yaml, which does not exist; name one in {CONFIGS}, "
        "or mount it",
    ),
    (
        "RayJob",
        {"spec entrypoint": "python -m trainers.ppo --config=/recipes/ours.yaml"},
        f"spec.entrypoint: names the recipe /recipes/ours.yaml, which does not exist; name one in {CONFIGS}, or mount it",
    ),
    (
        "RayJob",
        {"spec entrypoint": "python -m trainers.grpo --config=configs/laptop.yaml"},
        "spec.entrypoint: runs trainers.grpo, which this project does not have; name one of its modules",
    ),
    (
        "RayJob",
        {"spec entrypoint": "python -m trainers.ppo --name 'x"},
        "spec.entrypoint: has an unclosed quotation mark; close it",
    ),
    (
        "RayJob",
        {f"{TRAINER} {CONTAINER} env": []},
        f"{IN_TRAINER}.env: CHIMED_RUNS is not set, which is not on a volume, so runs would be lost; name a mounted folder",
    ),
    (
        "RayJob",
        {f"{SPEC} headGroupSpec {CONTAINER} env 0 value": "/tmp/runs"},
        "spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].env: CHIMED_RUNS is /tmp/runs, "
        "which is not on a volume, so runs would be lost; name a mounted folder",
    ),
    (
        "RayJob",
        KUEUE,
        "spec.rayClusterSpec.enableInTreeAutoscaling: is refused by Kueue, which reserves a fixed size; "
        "set it to false and replicas to what is needed",
    ),
    (
        "RayJob",
        {
            **KUEUE,
            "spec rayClusterSpec": ...,
            "spec clusterSelector ray.io/cluster": "chimed",
            "spec backoffLimit": 0,
        },
        "spec.clusterSelector: is not managed by Kueue; give the job a rayClusterSpec, or no queue",
    ),
    (
        "RayJob",
        {
            **KUEUE,
            f"{SPEC} enableInTreeAutoscaling": False,
            "spec shutdownAfterJobFinishes": False,
            "spec ttlSecondsAfterFinished": 0,
        },
        "spec.shutdownAfterJobFinishes: must be true with Kueue, which otherwise does not release the quota; set it to true",
    ),
    (
        "RayJob",
        {
            "metadata labels kueue.x-k8s.io/queue-name": "chimed",
            f"{SPEC} enableInTreeAutoscaling": False,
            f"{SPEC} workerGroupSpecs 0 maxReplicas": 0,
            f"{SPEC} workerGroupSpecs 2 maxReplicas": 0,
        },
        "spec.rayClusterSpec.workerGroupSpecs[1].replicas: is 0, but maxReplicas is 2: kueue.x-k8s.io/queue-name "
        "would not wait for the rest; make them equal",
    ),
    (
        "RayJob",
        VOLCANO,
        "spec.rayClusterSpec.workerGroupSpecs[1].minReplicas: is 0, but maxReplicas is 2: volcano.sh/queue-name "
        "would not wait for the rest; make them equal",
    ),
    (
        "RayService",
        {"spec serveConfigV2": "applications: [{name: chimed}]"},
        "spec.serveConfigV2: applications[0].import_path is None; give MODULE:NAME, e.g. serve.app:build",
    ),
    ("RayService", {"spec serveConfigV2": "applications: ["}, "spec.serveConfigV2: is not valid YAML; repair it"),
    (
        "RayService",
        {"spec serveConfigV2": ...},
        "spec.serveConfigV2: has no applications; list at least one with its import_path",
    ),
    (
        "PodDisruptionBudget",
        {"spec minAvailable": ..., "spec maxUnavailable": 0},
        "spec.maxUnavailable: does not work for Ray's pods, whose owner Kubernetes cannot scale; "
        "give minAvailable as a number",
    ),
    (
        "PodDisruptionBudget",
        {"spec minAvailable": "50%"},
        "spec.minAvailable: does not work for Ray's pods, whose owner Kubernetes cannot scale; "
        "give minAvailable as a number",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "words"), MISTAKES)
def test_a_mistake_is_refused_in_one_line(kind, changes, words, refused):
    assert refused(kind, changes) == [words]


def test_a_mounted_recipe_is_accepted(refused):
    assert refused("RayJob", {"spec entrypoint": "python -m trainers.ppo --config /runs/recipes/ours.yaml"}) == []


def test_a_program_of_another_project_is_left_alone(refused):
    assert refused("RayJob", {"spec entrypoint": "python -m theirs --config none.yaml"}) == []


def test_images_without_a_version_of_ray_in_the_tag_are_left_alone(refused):
    assert refused("RayJob", {f"{TRAINER} {CONTAINER} image": "registry.example.com/theirs:7"}) == []
