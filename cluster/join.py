"""Joining a Ray cluster that runs already, or saying within seconds why that cannot be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import grpc
import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.gcs_utils import create_gcs_channel
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import RayError

from cluster.environment import for_joined_cluster
from cluster.paths import in_job
from configs.base import REPOSITORY
from configs.errors import ConfigError

_SECONDS_TO_ANSWER = 10.0


def join(address: str, options: Mapping[str, Any]) -> None:
    """Connect to the cluster at `address`, as `$RAY_ADDRESS` gives it, with further options of `ray.init`.

    Raises:
        ConfigError: not an address, nobody answers there, a token is wrong or wanting, or another version of Ray.
    """
    try:
        require_ray_at(address, as_ray=True)
        variables = for_joined_cluster()
        os.environ.update({name: value for name, value in variables.items() if name != "PATH"})
        runtime_env: dict[str, Any] = {"env_vars": variables}
        if not in_job():
            runtime_env["working_dir"] = str(REPOSITORY)
        ray.init(address=address, runtime_env=runtime_env, **options)
    except (RayError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"cannot join the Ray cluster at RAY_ADDRESS={address}: {error}") from error


def require_ray_at(
    address: str,
    setting: str = "RAY_ADDRESS=",
    away: str = "submit a job with ray job submit, or unset RAY_ADDRESS to run on this machine alone",
    *,
    as_ray: bool = False,
) -> None:
    """Ask the head whether it is there and lets us in: `ray.init` would keep trying for minutes, then end the process.

    Args:
        address: HOST:PORT; with `as_ray` also `auto` for the cluster that runs on this machine.
        setting: what gave the address, as messages name it.
        away: what else the user may do, as messages end.
        as_ray: ask where `ray.init` will, which takes this node's own address for `localhost`.

    Raises:
        ConfigError: not an address, nobody answers there, a token is wrong or wanting, or another version of Ray.
        ConnectionError: `auto`, and no cluster on this machine.
    """
    if "://" in address or not (":" in address or (as_ray and address == "auto")):
        raise ConfigError(
            f"{setting}{address} is not the address of a Ray head: give HOST:PORT (the port is usually 6379), {away}"
        )
    # `ray start` turns authentication on where it finds a token; `ray.init` with an address does not look for one.
    # A cluster without authentication ignores it.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        with create_gcs_channel(canonicalize_bootstrap_address_or_die(address) if as_ray else address) as channel:
            head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            answer = head.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=_SECONDS_TO_ANSWER)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise ConfigError(
                f"the Ray cluster at {setting}{address} asks for a token, and this process has none or a wrong one: "
                "put it into RAY_AUTH_TOKEN, or its file's path into RAY_AUTH_TOKEN_PATH"
            ) from error
        raise ConfigError(
            f"no Ray cluster answers at {setting}{address} ({error.details()}); "
            f"start one there with ray start --head, {away}"
        ) from error
    if answer.ray_version != ray.__version__:
        raise ConfigError(
            f"the Ray cluster at {setting}{address} runs ray {answer.ray_version}, but this environment has "
            f"{ray.__version__}: install the same version on both"
        )
