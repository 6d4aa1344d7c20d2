"""The listen address of a Serve replica's gRPC server."""

from __future__ import annotations

from typing import Any, Self

_EVERYWHERE = "[::]"


class OnNodeAddress:
    """Base class of deployments whose gRPC server listens at the node's address, as Ray's own servers do.

    Serve binds this server to all addresses of the machine, and without a token it unpickles messages from any sender:
    a cluster on loopback would be exposed to the network. The patch is applied in `__new__`, because Serve creates the
    instance before it binds the port.
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        from ray.serve._private import replica

        replica.add_port_to_grpc_server = _at_node
        return super().__new__(cls)


def _at_node(server: Any, address: str) -> int:
    from ray._common.tls_utils import add_port_to_grpc_server
    from ray.util import get_node_ip_address

    node = get_node_ip_address()
    return add_port_to_grpc_server(server, address.replace(_EVERYWHERE, f"[{node}]" if ":" in node else node))
