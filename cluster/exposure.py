"""Detects Ray clusters that other machines can use without a token.

Anyone who can reach the head of such a cluster can run code in it, as its user. Joining or starting one is an error
unless the user explicitly allows it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import grpc

from cluster.ray_internals import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc, node_ip_address_from_perspective
from configs.errors import ConfigError

_SECONDS_TO_ANSWER = 5.0


def require_closed(address: str, insecure: bool, allow: str = "--insecure") -> None:
    """Rejects a cluster that needs no token and listens on more than loopback.

    Args:
        address: HOST:PORT of the head.
        insecure: whether the user accepts such a cluster.
        allow: the option with which the user accepts such a cluster, for the error message.

    Raises:
        ConfigError: the cluster is open, and `insecure` is false.
    """
    if insecure:
        return
    reached = open_addresses(address)
    if reached:
        raise ConfigError(
            f"the Ray cluster at {address} lets anyone who reaches {', '.join(reached)} run code without a token: "
            "restart it with RAY_AUTH_MODE=token (docs/security.md), or accept that with " + allow
        )


def open_addresses(address: str) -> list[str]:
    """Returns the non-loopback addresses of the cluster's nodes if it needs no token, or else an empty list.

    A cluster that requires TLS rejects the plaintext connection made here, and so counts as closed.

    Args:
        address: HOST:PORT of the head.
    """
    nodes = _nodes_without_token(address)
    if nodes is None:
        return []
    found = {node for node in nodes if not is_loopback(node)}
    host, _, port = address.rpartition(":")
    if is_loopback(host) and not found:
        # Ray may report 127.0.0.1 as its node's address and still listen on every interface.
        outer = node_ip_address_from_perspective()
        if not is_loopback(outer) and _nodes_without_token(f"{outer}:{port}") is not None:
            found.add(outer)
    return sorted(found)


def is_loopback(host: str) -> bool:
    """Returns whether `host` is this machine's loopback: `localhost`, 127.0.0.0/8, or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _nodes_without_token(address: str) -> Iterable[str] | None:
    """Queries the addresses of the live nodes without a token or TLS.

    Returns None if the head rejects the query or does not respond.
    """
    with grpc.insecure_channel(address) as channel:
        head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            reply = head.GetAllNodeInfo(gcs_service_pb2.GetAllNodeInfoRequest(), timeout=_SECONDS_TO_ANSWER)
        except grpc.RpcError:
            return None
    return [node.node_manager_address for node in reply.node_info_list if node.state == gcs_pb2.GcsNodeInfo.ALIVE]
