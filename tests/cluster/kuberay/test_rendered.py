"""Every folder that one applies, rendered as kubectl does it: nothing is refused, and it is what it says."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import yaml

from actors.sizing.memory import GIB, engine, kv_bytes
from actors.sizing.shape import Shape
from cluster.kuberay.check import check
from cluster.kuberay.clusters import RayClusterView, ray_cluster
from cluster.kuberay.manifests import Manifest, read, renderer
from configs.base import read as read_recipe
from serve.app import GATEWAY_CPUS, SCORER_CPUS
from serve.config import read_arguments
from trainers.config.rejection import RejectionConfig
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.config.supervised import SupervisedConfig

KUBERAY = Path(__file__).resolve().parents[3] / "cluster" / "kuberay"
ZIYA = "overlays/ziya2-13b-16xh100"
ZIYA2 = Shape(hidden=5120, layers=40, intermediate=13824, heads=40, vocab=39424)

pytestmark = pytest.mark.skipif(renderer() is None, reason="neither kubectl nor kustomize is installed")


def folders() -> list[str]:
    """Those with a Kustomization; parts are Components, and values alone are nothing to apply."""
    found = []
    for file in sorted(KUBERAY.rglob("kustomization.yaml")):
        kind = yaml.safe_load(file.read_text(encoding="utf-8"))["kind"]
        if kind == "Kustomization" and file.parent.name != "values":
            found.append(file.parent.relative_to(KUBERAY).as_posix())
    return found


@cache
def rendered(folder: str) -> dict[str, Manifest]:
    manifests = read(str(KUBERAY / folder))
    named = {f"{manifest.kind}/{manifest.name}": manifest for manifest in manifests}
    assert len(named) == len(manifests)
    return named


def cluster_in(folder: str) -> RayClusterView:
    (found,) = filter(None, map(ray_cluster, rendered(folder).values()))
    return found


def limits(ray: RayClusterView) -> dict[str, tuple[int, int]]:
    """Most nodes, and GPUs of a node, by group."""
    found = {}
    for group in ray.workers:
        ((_, container),) = group.containers()
        found[group.name] = group.spec["maxReplicas"], int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
    return found


@pytest.mark.parametrize("folder", folders())
def test_nothing_is_refused(folder):
    assert [str(problem) for manifest in rendered(folder).values() for problem in check(manifest)] == []


@pytest.mark.parametrize("folder", folders())
def test_nothing_is_refused_by_the_schemas(folder, schemas):
    assert [str(problem) for manifest in rendered(folder).values() for problem in check(manifest, schemas)] == []


@pytest.mark.parametrize("folder", folders())
def test_values_and_templates_stay_behind(folder):
    text = yaml.safe_dump([manifest.content for manifest in rendered(folder).values()])
    kinds = [name.split("/")[0] for name in rendered(folder)]
    assert "ConfigMap" not in kinds
    assert sum(kind.startswith("Ray") for kind in kinds) <= 1
    assert not {"stage --config", "configs/recipe.yaml", "chimed-stage"} & {word for word in text.split("\n") if word}
    assert "recipe.yaml" not in text


def test_what_one_applies():
    assert folders() == [
        *(f"jobs/{stage}" for stage in sorted(STAGES)),
        "overlays/ppo-kueue",
        "overlays/ppo-volcano",
        "overlays/raycluster-gcs-fault-tolerance",
        "overlays/service-gcs-fault-tolerance",
        *(f"{ZIYA}/{name}" for name in sorted([*STAGES, "service", "shared"])),
        "raycluster",
        "service",
        "shared",
    ]
    assert set(rendered("shared")) == {
        "PersistentVolumeClaim/chimed-runs",
        "NetworkPolicy/chimed",
        "NetworkPolicy/chimed-autoscaler",
    }


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("jobs", "recipe"), [("jobs", "laptop"), (ZIYA, "ziya2-13b-16xh100")])
def test_a_job_runs_its_stage_on_its_recipe(stage, jobs, recipe):
    folder = f"{jobs}/{stage}"
    assert set(rendered(folder)) == {f"RayJob/chimed-{stage}", f"PodDisruptionBudget/chimed-{stage}"}
    job = rendered(folder)[f"RayJob/chimed-{stage}"]
    command = f"python -m trainers.{stage} --config configs/{recipe}.yaml --cluster.start_timeout_s=1800"
    assert job.at("spec", "entrypoint") == command
    config = read_recipe(stage, STAGES, command.split()[3:])
    assert config.model_dump()["cluster"]["start_timeout_s"] == 1800
    instance = rendered(folder)[f"PodDisruptionBudget/chimed-{stage}"].at("spec", "selector", "matchLabels")
    for group in cluster_in(folder).groups:
        assert group.spec["template"]["metadata"]["labels"]["app.kubernetes.io/instance"] == f"chimed-{stage}"
    assert instance == {"app.kubernetes.io/instance": f"chimed-{stage}", "ray.io/node-type": "head"}


@pytest.mark.parametrize("folder", ["raycluster", "service", "jobs/ppo", f"{ZIYA}/ppo"])
def test_the_head_does_no_work_and_groups_begin_empty(folder):
    ray = cluster_in(folder)
    assert ray.head.spec["rayStartParams"]["num-cpus"] == "0"
    assert ray.autoscaling
    assert [group.name for group in ray.workers] == ["cpu", "trainer", "rollout"]
    assert [(group.spec["replicas"], group.spec["minReplicas"]) for group in ray.workers] == [(0, 0)] * 3


@pytest.mark.parametrize("folder", ["raycluster", "service", "jobs/sft", "overlays/ppo-kueue"])
def test_every_pod_has_the_volume_is_under_the_network_policy_and_has_no_privileges(folder):
    selected = rendered("shared")["NetworkPolicy/chimed"].at("spec", "podSelector", "matchLabels")
    for group in cluster_in(folder).groups:
        assert selected.items() <= group.spec["template"]["metadata"]["labels"].items()
        assert group.pod["volumes"][0] == {"name": "runs", "persistentVolumeClaim": {"claimName": "chimed-runs"}}
        assert group.pod["securityContext"]["runAsNonRoot"] is True
        ((_, container),) = group.containers()
        assert group.environment()["CHIMED_RUNS"][1] == container["volumeMounts"][0]["mountPath"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]) == {"limits"}


def test_pods_find_one_another_by_dns():
    egress = rendered("shared")["NetworkPolicy/chimed"].at("spec", "egress")
    assert {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]} in egress


@pytest.mark.parametrize("queue", ["kueue", "volcano"])
def test_a_queued_job_has_all_its_nodes_from_the_start(queue):
    ray = cluster_in(f"overlays/ppo-{queue}")
    sizes = [tuple(group.spec[name] for name in ("minReplicas", "replicas", "maxReplicas")) for group in ray.workers]
    assert sizes == [(0, 0, 0), (1, 1, 1), (1, 1, 1)]
    assert ray.autoscaling == (queue == "volcano")


@pytest.mark.parametrize("stage", STAGES)
def test_sixteen_gpus_are_what_the_recipe_for_ziya_asks_for(stage):
    config = read_recipe(stage, STAGES, ["--config", "configs/ziya2-13b-16xh100.yaml"])
    sizes = limits(cluster_in(f"{ZIYA}/{stage}"))
    assert sum(nodes * gpus for nodes, gpus in sizes.values()) == 16
    if isinstance(config, SupervisedConfig):
        placements = [config.placement]
    elif isinstance(config, RejectionConfig):
        placements = [config.rollout.placement, config.reward.placement]
        assert config.sft.placement.ranks * config.sft.placement.gpus_per_rank == 16  # after them, in their place
    else:
        assert isinstance(config, PPOConfig)
        roles = (config.policy, config.critic, config.reference, config.reward, config.rollout)
        placements = [role.placement for role in roles]
    assert sum(placement.ranks * placement.gpus_per_rank for placement in placements) == 16


def test_the_endpoint_serves_the_model_of_the_values_and_has_keys():
    service = rendered(f"{ZIYA}/service")["RayService/chimed-endpoint"]
    (application,) = yaml.safe_load(service.at("spec", "serveConfigV2"))["applications"]
    assert application["import_path"] == "serve.app:build"
    assert application["args"]["model"] == "runs/ziya2-13b/ppo/model"
    assert application["args"]["api_keys_file"] == "/etc/chimed/keys.yaml"
    for group in cluster_in(f"{ZIYA}/service").groups:
        assert "CHIMED_API_KEYS" not in group.environment()
        mounts = {mount["name"]: mount["mountPath"] for mount in next(group.containers())[1]["volumeMounts"]}
        assert mounts["api-keys"] == "/etc/chimed"
        (volume,) = (one for one in group.pod["volumes"] if one["name"] == "api-keys")
        assert volume["secret"] == {"secretName": "chimed-api-keys"}


@pytest.mark.parametrize(
    ("folder", "gpus", "dtype"),
    [
        ("service", 0, "float32"),
        (f"{ZIYA}/service", 1, "bfloat16"),
        ("overlays/service-gcs-fault-tolerance", 0, "float32"),
    ],
)
def test_the_endpoint_is_given_gpus_and_dtype_that_its_nodes_have_room_for(folder, gpus, dtype):
    service = rendered(folder)["RayService/chimed-endpoint"]
    (application,) = yaml.safe_load(service.at("spec", "serveConfigV2"))["applications"]
    config = read_arguments(application["args"])
    assert (config.replicas.gpus, config.engine.dtype, config.reward_dtype) == (gpus, dtype, dtype)
    assert set(application["args"]) == {"model", "replicas.gpus", "engine.dtype", "api_keys_file"}
    sizes = [size for nodes, size in limits(cluster_in(folder)).values() if nodes]
    assert max(sizes) >= gpus
    if gpus:
        assert config.replicas.cpus + SCORER_CPUS + GATEWAY_CPUS <= 64  # no node is there for those without a GPU
        h100 = int(79.6 * GIB)
        footprint = engine(ZIYA2, config.engine, 8192, h100, through_store=False)
        room = next(part.bytes for part in footprint.work if part.name == "KV cache")
        assert 8 * kv_bytes(ZIYA2, config.engine, config.engine.max_model_len) < room


@pytest.mark.parametrize("kind", ["raycluster", "service"])
def test_with_fault_tolerance_redis_is_there_and_named(kind):
    folder = f"overlays/{kind}-gcs-fault-tolerance"
    assert {"Service/chimed-redis", "StatefulSet/chimed-redis"} < set(rendered(folder))
    assert cluster_in(folder).spec["gcsFaultToleranceOptions"]["redisAddress"] == "chimed-redis:6379"
