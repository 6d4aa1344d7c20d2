"""This project's rules, for manifests that the operator accepts but that would later fail or wait forever."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import yaml

from cluster.kuberay.clusters import Found, Group, ray_cluster, ray_job
from cluster.kuberay.manifests import Manifest, mapping, sequence
from cluster.kuberay.quantities import quantity
from configs.recipe import Key
from storage.paths import RUNS_VARIABLE

KUEUE = "kueue.x-k8s.io/queue-name"
VOLCANO = "volcano.sh/queue-name"

_RAY_IN_TAG = re.compile(r"(?:/ray(?:-ml|-llm)?:|[:-]ray)(\d+\.\d+\.\d+)")

Rule = Callable[[Manifest, Path], Iterator[Found]]


def gpus(manifest: Manifest, _: Path) -> Iterator[Found]:
    """Checks that GPUs are given as limits: Ray reads only these, and Kubernetes rejects requests that differ."""
    ray = ray_cluster(manifest)
    for group in ray.groups if ray else ():
        for key, container in group.containers():
            resources = mapping(container.get("resources"))
            limits = mapping(resources.get("limits"))
            for name, asked in mapping(resources.get("requests")).items():
                if str(name).endswith("/gpu") and quantity(asked) != quantity(limits.get(name)):
                    yield (
                        (*key, "resources", "requests", name),
                        f"is {asked}, but the limit is {limits.get(name, 'not given')}; write GPUs as limits only",
                    )


def settings_said(manifest: Manifest, _: Path) -> Iterator[Found]:
    """Checks that settings whose defaults differ between versions are given explicitly."""
    ray = ray_cluster(manifest)
    if ray is None:
        return
    if ray.autoscaling and ray.autoscaler.get("version") is None:
        yield (*ray.key, "autoscalerOptions", "version"), "is not given; set it to v2"
    if mapping(ray.spec.get("authOptions")).get("mode") is None:
        yield (
            (*ray.key, "authOptions", "mode"),
            "is not given, and without tokens anyone who reaches the dashboard can run code; set it to token",
        )


def images(manifest: Manifest, _: Path) -> Iterator[Found]:
    """Checks that the Ray version in an image's tag, as in `ray:2.60.0` or `…-ray2.60.0-gpu`, equals `rayVersion`."""
    ray = ray_cluster(manifest)
    for group in ray.groups if ray else ():
        for key, container in list(group.containers())[:1]:
            found = _RAY_IN_TAG.search(str(container.get("image")))
            if ray and found and found.group(1) != ray.spec.get("rayVersion"):
                yield (
                    (*key, "image"),
                    f"has ray {found.group(1)}, but rayVersion is {ray.spec.get('rayVersion')}; make them the same",
                )


def entrypoints(manifest: Manifest, project: Path) -> Iterator[Found]:
    """Checks that a job runs a module of this project on an existing recipe, and keeps its runs on a volume."""
    key, job = ray_job(manifest) or ((), {})
    try:
        words = shlex.split(str(job.get("entrypoint") or ""))
    except ValueError:
        yield (*key, "entrypoint"), "has an unclosed quotation mark; close it"
        return
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    if not module.startswith(("trainers.", "evals.", "data.")):
        return
    if not any((project / module.replace(".", "/")).with_suffix(end).exists() for end in (".py", "")):
        yield (*key, "entrypoint"), f"runs {module}, which this project does not have; name one of its modules"
    ray = ray_cluster(manifest)
    for recipe in _recipes(words):
        inside = ray is not None and _on_a_volume(recipe, ray.head)
        if not (inside if recipe.startswith("/") else (project / recipe).is_file()):
            yield (
                (*key, "entrypoint"),
                f"names the recipe {recipe}, which does not exist; name one in {project / 'configs'}, or mount it",
            )
    for group in ray.groups if ray else ():
        runs = group.environment().get(RUNS_VARIABLE, ((), None))[1]
        if not (runs and _on_a_volume(str(runs), group)):
            yield (
                (*group.pod_key, "containers", 0, "env"),
                f"{RUNS_VARIABLE} is {runs or 'not set'}, which is not on a volume, so runs would be lost; name a mounted folder",
            )


def kueue(manifest: Manifest, _: Path) -> Iterator[Found]:
    """Checks that Kueue can manage the Ray cluster: it must belong to the job, end with it, and have a fixed size.

    Kueue reserves the whole cluster for as long as the job runs.
    """
    ray, found = ray_cluster(manifest), ray_job(manifest)
    if KUEUE not in mapping(manifest.at("metadata", "labels")):
        return
    if found:
        key, job = found
        if job.get("clusterSelector"):
            yield (*key, "clusterSelector"), "is not managed by Kueue; give the job a rayClusterSpec, or no queue"
        if job.get("shutdownAfterJobFinishes") is not True:
            yield (
                (*key, "shutdownAfterJobFinishes"),
                "must be true with Kueue, which otherwise does not release the quota; set it to true",
            )
    if ray and ray.autoscaling:
        yield (
            (*ray.key, "enableInTreeAutoscaling"),
            "is refused by Kueue, which reserves a fixed size; set it to false and replicas to what is needed",
        )


def whole_at_start(manifest: Manifest, _: Path) -> Iterator[Found]:
    """Checks that no pods are added later.

    At the start, a queue reserves only `replicas` (Kueue) or `minReplicas` (Volcano) of each group.
    """
    labels = mapping(manifest.at("metadata", "labels"))
    ray = ray_cluster(manifest)
    queue = next((label for label in (KUEUE, VOLCANO) if label in labels), None)
    for group in ray.workers if ray and queue else ():
        name = "replicas" if queue == KUEUE else "minReplicas"
        least, most = group.spec.get(name, 0), group.spec.get("maxReplicas")
        if least != most:
            yield (
                (*group.key, name),
                f"is {least}, but maxReplicas is {most}: {queue} would not wait for the rest; make them equal",
            )


def disruption(manifest: Manifest, _: Path) -> Iterator[Found]:
    """Checks that a PodDisruptionBudget for Ray's pods gives `minAvailable` as a number.

    Other forms require that the pods' owner has a scale subresource, and the owner of Ray's pods has none.
    """
    labels = mapping(manifest.at("spec", "selector", "matchLabels"))
    if manifest.kind != "PodDisruptionBudget" or not any(str(label).startswith("ray.io/") for label in labels):
        return
    wrong: list[Key] = [("spec", "maxUnavailable")] if manifest.at("spec", "maxUnavailable") is not None else []
    if isinstance(manifest.at("spec", "minAvailable"), str):
        wrong.append(("spec", "minAvailable"))
    for key in wrong:
        yield key, "does not work for Ray's pods, whose owner Kubernetes cannot scale; give minAvailable as a number"


def applications(manifest: Manifest, _: Path) -> Iterator[Found]:
    """Checks that `serveConfigV2`, for which the schema accepts any text, is YAML that Ray Serve accepts."""
    if manifest.kind != "RayService":
        return
    key: Key = ("spec", "serveConfigV2")
    try:
        config = yaml.safe_load(str(manifest.at(*key) or ""))
    except yaml.YAMLError:
        yield key, "is not valid YAML; repair it"
        return
    listed = sequence(mapping(config).get("applications"))
    if not listed:
        yield key, "has no applications; list at least one with its import_path"
    for index, application in enumerate(listed):
        path = str(mapping(application).get("import_path"))
        if not re.fullmatch(r"[\w.]+[.:]\w+", path):
            yield key, f"applications[{index}].import_path is {path}; give MODULE:NAME, e.g. serve.app:build"


PROJECT_RULES: tuple[Rule, ...] = (
    gpus,
    settings_said,
    images,
    entrypoints,
    kueue,
    whole_at_start,
    disruption,
    applications,
)


def _recipes(words: list[str]) -> Iterator[str]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--config":
            yield following
        elif word.startswith("--config="):
            yield word.removeprefix("--config=")


def _on_a_volume(path: str, group: Group) -> bool:
    """Returns whether a path is on a volume of the group's first container, which runs Ray."""
    first = [container for _, container in group.containers()][:1]
    mounts = [mapping(mount).get("mountPath") for one in first for mount in sequence(one.get("volumeMounts"))]
    return any(PurePosixPath(path).is_relative_to(str(mount)) for mount in mounts)
