"""Joins a running Ray cluster, or fails within seconds with the reason."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import grpc
import ray
from ray.exceptions import RayError

from cluster.environment import for_joined_cluster, stay_on_loopback
from cluster.exposure import is_loopback, require_closed
from cluster.ray_internals import (
    canonicalize_bootstrap_address_or_die,
    create_gcs_channel,
    gcs_service_pb2,
    gcs_service_pb2_grpc,
    get_node_ip_address,
    maybe_enable_token_auth_if_token_available,
)
from configs.base import REPOSITORY
from configs.errors import ConfigError
from storage.paths import in_job

_SECONDS_TO_ANSWER = 10.0


def join(address: str, options: Mapping[str, Any], insecure: bool = False) -> None:
    """Connects to a running cluster with `ray.init`.

    Args:
        address: HOST:PORT of the head, or `auto`, as in `$RAY_ADDRESS`.
        options: further options of `ray.init`.
        insecure: whether to accept a cluster that needs no token and listens on more than loopback.

    Raises:
        ConfigError: `address` is invalid, no cluster responds there, the token is wrong or missing, the cluster runs
            another version of Ray, or other machines can use the cluster without a token and `insecure` is false.
    """
    try:
        head = require_ray_at(address, as_ray=True)
        require_closed(head, insecure)
        on_loopback = is_loopback(head.rpartition(":")[0])
        if on_loopback:
            stay_on_loopback()
        variables = for_joined_cluster(on_loopback)
        os.environ.update({name: value for name, value in variables.items() if name != "PATH"})
        runtime_env: dict[str, Any] = {"env_vars": variables}
        if not in_job():
            runtime_env["working_dir"] = str(REPOSITORY)
        ray.init(address=head, runtime_env=runtime_env, **options)
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
) -> str:
    """Checks that a head accepts this process, and returns its HOST:PORT.

    Without this check, `ray.init` would retry for minutes and then exit the process.

    Args:
        address: HOST:PORT; with `as_ray` also `auto` for the cluster that runs on this machine.
        setting: the setting that the address comes from, for error messages.
        away: the end of error messages, which states what else the user can do.
        as_ray: whether to resolve the address as `ray.init` does, which replaces `localhost` with this node's address;
            the loopback address is kept if the head listens only there.

    Raises:
        ConfigError: `address` is invalid, no cluster responds there, the token is wrong or missing, or the cluster
            runs another version of Ray.
        ConnectionError: `address` is `auto`, and no cluster runs on this machine.
    """
    if "://" in address or not (":" in address or (as_ray and address == "auto")):
        raise ConfigError(
            f"{setting}{address} is not the address of a Ray head: give HOST:PORT (the port is usually 6379), {away}"
        )
    # `ray start` enables authentication if it finds a token, but `ray.init` with an address does not look for one.
    # A cluster without authentication ignores the token.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    found = _as_ray(address) if as_ray else address
    try:
        with create_gcs_channel(found) as channel:
            head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            answer = head.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=_SECONDS_TO_ANSWER)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise ConfigError(
                f"the Ray cluster at {setting}{address} asks for a token, and this process has none or a wrong one: "
                "put it into RAY_AUTH_TOKEN, or its file's path into RAY_AUTH_TOKEN_PATH"
            ) from error
        raise ConfigError(
            f"no Ray cluster responds at {setting}{address} ({error.details()}); "
            f"start one there (docs/security.md), {away}"
        ) from error
    if answer.ray_version != ray.__version__:
        raise ConfigError(
            f"the Ray cluster at {setting}{address} runs ray {answer.ray_version}, but this environment has "
            f"{ray.__version__}: install the same version on both"
        )
    return found


def _as_ray(address: str) -> str:
    """Returns the address that `ray.init` connects to, or the loopback address if the head listens only there."""
    found = canonicalize_bootstrap_address_or_die(address)
    port = int(found.rpartition(":")[2])
    local = found.rpartition(":")[0] == get_node_ip_address()
    return f"127.0.0.1:{port}" if local and not _listens(found) and _listens(f"127.0.0.1:{port}") else found


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER):
            return True
    except OSError:
        return False
