"""Rules for Ray clusters that KubeRay's operator enforces beyond its schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from cluster.kuberay.clusters import Found, Group, RayClusterView, version
from cluster.kuberay.manifests import mapping
from cluster.kuberay.quantities import quantity

_V2_VARIABLE = "RAY_enable_autoscaler_v2"
_SIZES = ("num-cpus", "num-gpus", "memory", "resources")
_TOKENS_SINCE = (2, 52, 0)
_PRIORITY_SINCE = (2, 56, 0)


def group_sizes(ray: RayClusterView) -> Iterator[Found]:
    """Checks that `minReplicas` and `maxReplicas` are not negative and form a valid range."""
    for group in ray.workers:
        least, most = group.spec.get("minReplicas", 0), group.spec.get("maxReplicas", 2**31 - 1)
        for name, value in (("minReplicas", least), ("maxReplicas", most)):
            if _is_number(value) and value < 0:
                yield (*group.key, name), f"is {value}; give 0 or more"
        if _is_number(least) and _is_number(most) and least > most:
            yield (
                (*group.key, "minReplicas"),
                f"is {least}, more than maxReplicas {most}; lower it or raise maxReplicas",
            )


def group_resources(ray: RayClusterView) -> Iterator[Found]:
    """Checks that a group's resources are given in one place only, and that its labels are in the group's own field."""
    for group in ray.groups:
        parameters = mapping(group.spec.get("rayStartParams"))
        sizes = [name for name in _SIZES if parameters.get(name)]
        if sizes and mapping(group.spec.get("resources")):
            yield (
                (*group.key, "resources"),
                f"is set together with rayStartParams.{sizes[0]}, which sets the same value; keep one of the two",
            )
        if "labels" in parameters:
            yield (
                (*group.key, "rayStartParams", "labels"),
                "is not read by the operator; use the group's own field labels",
            )


def container_resources(ray: RayClusterView) -> Iterator[Found]:
    """Checks that a container's requests do not exceed its limits."""
    for group in ray.groups:
        for key, container in group.containers():
            resources = mapping(container.get("resources"))
            limits = mapping(resources.get("limits"))
            for name, asked in mapping(resources.get("requests")).items():
                request, limit = quantity(asked), quantity(limits.get(name))
                if request is not None and limit is not None and request > limit:
                    yield (
                        (*key, "resources", "requests", name),
                        f"is {asked}, more than the limit {limits[name]}; lower it or raise the limit",
                    )


def autoscaler(ray: RayClusterView) -> Iterator[Found]:
    """Checks the autoscaler's options, and the group settings that depend on autoscaling or on Autoscaler v2.

    Autoscaler v2 replaces pods instead of restarting their containers, so `restartPolicy` must be `Never`.
    """
    v2 = ray.autoscaler.get("version") == "v2"
    if ray.autoscaling and v2:
        for group in ray.groups:
            policy = group.pod.get("restartPolicy")
            if policy not in (None, "Never"):
                yield (
                    (*group.pod_key, "restartPolicy"),
                    f"is {policy}, but autoscaler v2 replaces pods; set it to Never",
                )
    variable = ray.head.environment().get(_V2_VARIABLE)
    if variable and ray.autoscaling and ray.autoscaler.get("version"):
        yield variable[0], f"{_V2_VARIABLE} is set together with autoscalerOptions.version; remove the variable"
    if variable and not ray.autoscaling and variable[1] in ("1", "true"):
        yield variable[0], f"{_V2_VARIABLE} is set without autoscaling; set enableInTreeAutoscaling: true"
    yield from _idle_timeouts(ray, v2=v2)
    for group in ray.workers:
        if ray.autoscaling and group.spec.get("suspend") is True:
            yield (*group.key, "suspend"), "cannot be used with autoscaling; remove it or turn autoscaling off"
        if group.spec.get("priority"):
            found = version(ray.spec.get("rayVersion"))
            if not v2 or found is None or found < _PRIORITY_SINCE:
                yield (
                    (*group.key, "priority"),
                    "needs autoscalerOptions.version v2 and rayVersion 2.56.0 or later; set both or remove it",
                )


def authentication(ray: RayClusterView) -> Iterator[Found]:
    """Checks that token authentication has an explicit `rayVersion` that supports it.

    Also checks that `enableK8sTokenAuth` is set only with token authentication.
    """
    options = mapping(ray.spec.get("authOptions"))
    if options.get("mode") == "token":
        found = version(ray.spec.get("rayVersion"))
        if found is None or found < _TOKENS_SINCE:
            given = repr(ray.spec["rayVersion"]) if "rayVersion" in ray.spec else "not given"
            yield (
                (*ray.key, "rayVersion"),
                f"is {given}, but authOptions.mode token needs 2.52.0 or later; name the version in the image",
            )
    elif options.get("enableK8sTokenAuth") is True:
        yield (*ray.key, "authOptions", "enableK8sTokenAuth"), "needs authOptions.mode token; set the mode"


def fault_tolerance(ray: RayClusterView) -> Iterator[Found]:
    """Checks that Redis is configured in `gcsFaultToleranceOptions` only.

    Without these options, a Redis password is accepted elsewhere.
    """
    environment = ray.head.environment()
    parameters = mapping(ray.head.spec.get("rayStartParams"))
    options = ray.spec.get("gcsFaultToleranceOptions")
    fields = {
        "RAY_REDIS_ADDRESS": "redisAddress",
        "REDIS_PASSWORD": "redisPassword",
        "REDIS_USERNAME": "redisUsername",
    }
    for name, field in fields.items():
        if name in environment and (options is not None or name != "REDIS_PASSWORD"):
            how = "is set together with" if options is not None else "is set without"
            yield (
                environment[name][0],
                f"{name} {how} gcsFaultToleranceOptions; remove it and use gcsFaultToleranceOptions.{field}",
            )
    for name, field in (("redis-password", "redisPassword"), ("redis-username", "redisUsername")):
        if parameters.get(name) and (options is not None or name == "redis-username"):
            yield (
                (*ray.head.key, "rayStartParams", name),
                f"is refused by the operator; remove it and use gcsFaultToleranceOptions.{field}",
            )


def alpha_fields(ray: RayClusterView) -> Iterator[Found]:
    """Rejects fields whose feature gate is off by default in the operator."""
    if ray.spec.get("networkPolicy") is not None:
        yield (
            (*ray.key, "networkPolicy"),
            "needs the operator's gate RayClusterNetworkPolicy, which is off; apply your own NetworkPolicy",
        )


CLUSTER_RULES: tuple[Callable[[RayClusterView], Iterator[Found]], ...] = (
    group_sizes,
    group_resources,
    container_resources,
    autoscaler,
    authentication,
    fault_tolerance,
    alpha_fields,
)


def _idle_timeouts(ray: RayClusterView, *, v2: bool) -> Iterator[Found]:
    places: list[tuple[Group | None, dict[str, Any]]] = [(None, ray.autoscaler)]
    places += [(group, group.spec) for group in ray.workers]
    for group, spec in places:
        seconds = spec.get("idleTimeoutSeconds")
        key = (*(group.key if group else (*ray.key, "autoscalerOptions")), "idleTimeoutSeconds")
        if _is_number(seconds) and seconds < 0:
            yield key, f"is {seconds}; give seconds, 0 or more"
        elif group and seconds is not None and not v2:
            yield key, "needs autoscaler v2; set autoscalerOptions.version: v2"


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
