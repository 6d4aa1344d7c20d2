"""Checks built-in kinds of Kubernetes, and the Kubernetes parts of Ray's kinds, against the schemas of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kubernetes_validate
from jsonschema.exceptions import ValidationError

from cluster.kuberay.clusters import Found, ray_cluster
from cluster.kuberay.manifests import Manifest
from cluster.kuberay.schemas import explain
from configs.recipe import Key


def core_problems(manifest: Manifest, kubernetes: str) -> Iterator[Found]:
    """Yields what an API server of version `kubernetes` (e.g. "1.32") would reject in an object of a built-in kind."""
    try:
        yield from _validate(manifest.content, kubernetes)
    except kubernetes_validate.utils.SchemaNotFoundError:
        yield (
            ("kind",),
            f"{manifest.content['apiVersion']} {manifest.kind} is not a kind of Kubernetes {kubernetes}; "
            f"correct it, or check this object by other means",
        )


def metadata_problems(manifest: Manifest, kubernetes: str) -> Iterator[Found]:
    """Yields the problems in the metadata of an object of any kind."""
    stand_in = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest.content.get("metadata")}
    yield from _validate(stand_in, kubernetes)


def pod_problems(manifest: Manifest, kubernetes: str) -> Iterator[Found]:
    """Yields the problems in a Ray cluster's pod templates. This check is used if KubeRay's schemas are not given."""
    ray = ray_cluster(manifest)
    for group in ray.groups if ray else ():
        stand_in = {"apiVersion": "v1", "kind": "PodTemplate", "template": group.spec.get("template")}
        for key, text in _validate(stand_in, kubernetes):
            yield (*group.key, *key), text


def _validate(content: dict[str, Any], kubernetes: str) -> Iterator[Found]:
    try:
        kubernetes_validate.validate(content, kubernetes, strict=True)
    except ValidationError as error:
        named: list[tuple[Key, str]] = list(explain(error))
        yield from named
