"""Whether a Ray cluster lets anyone in: without a token, from other machines.

Whoever reaches the head of such a cluster runs code in it, as its user: joining one, or starting one, is refused unless
the user asks for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import grpc

from cluster.ray_internals import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc, node_ip_address_from_perspective
from configs.errors import ConfigError

_SECONDS_TO_ANSWER = 5.0


def require_closed(address: str, insecure: bool, allow: str = "--insecure") -> None:
    """Refuse a cluster that answers without a token and listens beyond loopback.

    Args:
        address: HOST:PORT of the head.
        insecure: whether the user accepts such a cluster.
        allow: the option that accepts it, as the message names it.

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
    """Addresses beyond loopback at which nodes of the cluster listen, if it needs no token; else nothing.

    A cluster that requires TLS refuses the plain connection made here, as it refuses every stranger's.
    """
    nodes = _nodes_without_token(address)
    if nodes is None:
        return []
    found = {node for node in nodes if not is_loopback(node)}
    host, _, port = address.rpartition(":")
    if is_loopback(host) and not found:
        # Ray may call its node 127.0.0.1 and listen on every interface nonetheless.
        outer = node_ip_address_from_perspective()
        if not is_loopback(outer) and _nodes_without_token(f"{outer}:{port}") is not None:
            found.add(outer)
    return sorted(found)


def is_loopback(host: str) -> bool:
    """Whether this names the machine itself: `localhost`, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _nodes_without_token(address: str) -> Iterable[str] | None:
    """Addresses of the live nodes, as the head tells a client without token and TLS; None where it refuses that."""
    with grpc.insecure_channel(address) as channel:
        head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            reply = head.GetAllNodeInfo(gcs_service_pb2.GetAllNodeInfoRequest(), timeout=_SECONDS_TO_ANSWER)
        except grpc.RpcError:
            return None
    return [node.node_manager_address for node in reply.node_info_list if node.state == gcs_pb2.GcsNodeInfo.ALIVE]
