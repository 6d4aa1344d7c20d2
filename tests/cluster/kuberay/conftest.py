"""Good objects to plant mistakes in, and KubeRay's schemas where they are: they are not part of the project."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate.utils
import pytest
import yaml

from cluster.kuberay.check import check
from cluster.kuberay.manifests import Manifest
from cluster.kuberay.schemas import SCHEMAS_VARIABLE, RaySchemas

ROOT = Path(__file__).resolve().parents[3]
OBJECTS = {
    "NetworkPolicy": "shared/network.yaml",
    "PersistentVolumeClaim": "shared/runs.yaml",
    "PodDisruptionBudget": "cluster/disruption.yaml",
    "RayCluster": "cluster/cluster.yaml",
    "RayJob": "job/rayjob.yaml",
    "RayService": "service/rayservice.yaml",
}


@pytest.fixture(scope="session", autouse=True)
def _read_schemas_once() -> Iterator[None]:
    """Keeps the schemas of Kubernetes, which the library reads from disk for every object."""
    with pytest.MonkeyPatch.context() as patch:
        read = kubernetes_validate.utils.schema_contents
        patch.setattr(kubernetes_validate.utils, "schema_contents", cache(read))
        yield


@pytest.fixture(scope="session")
def schemas() -> RaySchemas:
    folder = os.environ.get(SCHEMAS_VARIABLE, str(ROOT.parent / "shared" / "kuberay-crds"))
    if not Path(folder).is_dir():
        pytest.skip(f"KubeRay's schemas are not here; name their folder in {SCHEMAS_VARIABLE}")
    return RaySchemas(folder)


@pytest.fixture(scope="session")
def plant() -> Callable[[str, dict[str, Any]], Manifest]:
    return planted


@pytest.fixture(scope="session")
def refused() -> Callable[[str, dict[str, Any]], list[str]]:
    """What the check says, without KubeRay's schemas, of a good object with changes; without file, kind and name."""

    def words(kind: str, changes: dict[str, Any]) -> list[str]:
        manifest = planted(kind, changes)
        said = [str(problem) for problem in check(manifest)]
        start = f"here.yaml: {manifest.kind}/{manifest.name}: "
        assert all(line.startswith(start) and "\n" not in line for line in said)
        return [line.removeprefix(start) for line in said]

    return words


def planted(kind: str, changes: dict[str, Any]) -> Manifest:
    """A good object with changes, `...` for what is taken away. A key's parts have blanks between them, not dots."""
    content = good(kind)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split()]
        place: Any = content
        for part in parents:
            place = place[part] if isinstance(place, list) else place.setdefault(part, {})
        if value is ...:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    return Manifest("here.yaml", content)


def good(kind: str) -> dict[str, Any]:
    """An object of the project, put together without kustomize."""
    content, ray = (copy.deepcopy(load(OBJECTS[name])) for name in (kind, "RayCluster"))
    if kind == "RayService":
        content["spec"]["rayClusterConfig"] = ray["spec"]
    if kind == "RayJob":
        content["metadata"]["name"] = "chimed-ppo"
        content["spec"]["entrypoint"] = "python -m trainers.ppo --config configs/laptop.yaml"
        content["spec"]["rayClusterSpec"] = ray["spec"]
    return content


@cache
def load(path: str) -> dict[str, Any]:
    return next(yaml.safe_load_all((ROOT / "cluster/kuberay/parts" / path).read_text(encoding="utf-8")))
