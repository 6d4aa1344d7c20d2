"""python -m cluster.kuberay.check PATH…: finds what Kubernetes, KubeRay, Kueue, Volcano, or a run would reject.

PATH is a YAML file, or a kustomize folder, which is rendered with kubectl or kustomize. No cluster is needed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.kuberay.cluster_rules import CLUSTER_RULES
from cluster.kuberay.clusters import Found, ray_cluster
from cluster.kuberay.core import core_problems, metadata_problems, pod_problems
from cluster.kuberay.manifests import Manifest, Problem, read
from cluster.kuberay.object_rules import OBJECT_RULES
from cluster.kuberay.project_rules import PROJECT_RULES
from cluster.kuberay.schemas import RAY_KINDS, SCHEMAS_VARIABLE, RaySchemas
from configs.arguments import Parser
from configs.base import REPOSITORY
from configs.errors import one_line_errors
from configs.logs import configure
from configs.program import program

logger = logging.getLogger(__name__)

PROG = program("cluster.kuberay.check")
KUBERNETES = "1.32"


def check(
    manifest: Manifest, schemas: RaySchemas | None = None, project: Path = REPOSITORY, kubernetes: str = KUBERNETES
) -> list[Problem]:
    """Returns all problems of one object.

    Args:
        manifest: the object.
        schemas: KubeRay's schemas; if None, only the metadata and pods of Ray's kinds are checked against a schema.
        project: the project's folder, which must contain the modules and recipes that jobs name.
        kubernetes: the version of Kubernetes, such as "1.32".
    """
    if manifest.kind in RAY_KINDS:
        found = _ray_problems(manifest, schemas, kubernetes)
    else:
        found = core_problems(manifest, kubernetes)
    rules = (each for rule in PROJECT_RULES for each in rule(manifest, project))
    return [Problem(manifest, key, text) for key, text in (*found, *rules)]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one line per problem. Exit status: 0 without problems, 1 with problems, 2 if an input cannot be read."""
    options = _parse(argv)
    configure("cluster.kuberay.check")
    with one_line_errors(PROG):
        schemas = RaySchemas(options.crds) if options.crds else None
        if schemas is None:
            logger.warning("KubeRay's schemas are not checked; give their folder with --crds DIR")
        manifests = [manifest for path in options.paths for manifest in read(path)]
        problems = [
            problem
            for manifest in manifests
            for problem in check(manifest, schemas, options.project, options.kubernetes)
        ]
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{len(manifests)} objects, no problems")
    return 1 if problems else 0


def _ray_problems(manifest: Manifest, schemas: RaySchemas | None, kubernetes: str) -> Iterator[Found]:
    yield from metadata_problems(manifest, kubernetes)
    yield from schemas.problems(manifest) if schemas else pod_problems(manifest, kubernetes)
    for object_rule in OBJECT_RULES:
        yield from object_rule(manifest)
    ray = ray_cluster(manifest)
    for cluster_rule in CLUSTER_RULES if ray else ():
        assert ray is not None
        yield from cluster_rule(ray)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=PROG, description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a YAML file or a kustomize folder")
    parser.add_argument(
        "--crds",
        metavar="DIR",
        default=os.environ.get(SCHEMAS_VARIABLE),
        help=f"folder of KubeRay's custom resource definitions (default: ${SCHEMAS_VARIABLE})",
    )
    parser.add_argument(
        "--project",
        type=Path,
        default=REPOSITORY,
        help="folder of the project, with its programs and recipes (default: %(default)s)",
    )
    parser.add_argument("--kubernetes", default=KUBERNETES, help="Kubernetes version (default: %(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
