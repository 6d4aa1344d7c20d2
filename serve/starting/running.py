"""Endpoints that run: each is recorded in its cluster's key-value store, through which it is asked for new weights.

The store is kept by the cluster's head, so who may reach that (with the token, where there is one) may ask.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.head import Head, HeadError
from cluster.join import require_ray_at
from cluster.ray_internals import find_gcs_addresses
from configs.errors import ConfigError
from serve.config import ServeConfig

SPACE = "chimed-serve"
_STALE_S = 30.0


@dataclass
class Endpoint:
    """One endpoint, as it records itself."""

    port: int
    settings: dict[str, Any]
    pid: int = field(default_factory=os.getpid)
    at: float = field(default_factory=time.time)
    """When its process was last alive, Unix time."""


@dataclass(frozen=True)
class Change:
    """A request for new weights, and what became of it."""

    weights: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    done: bool = False
    error: str = ""


class Record:
    """The record of the endpoint at a port in the key-value store of one cluster."""

    def __init__(self, head: Head, port: int) -> None:
        self._head, self._port = head, port

    def write(self, endpoint: Endpoint) -> None:
        endpoint.at = time.time()
        self._head.set_value(SPACE, f"{self._port}/endpoint", json.dumps(asdict(endpoint)).encode())

    def read(self) -> Endpoint | None:
        """The endpoint, None where there is none or its process has ended."""
        text = self._head.value(SPACE, f"{self._port}/endpoint")
        endpoint = Endpoint(**json.loads(text)) if text else None
        return endpoint if endpoint and time.time() - endpoint.at < _STALE_S else None

    def ask(self, change: Change) -> None:
        """Writes a request, or what became of it."""
        self._head.set_value(SPACE, f"{self._port}/change", json.dumps(asdict(change)).encode())

    def asked(self) -> Change | None:
        """The last request."""
        text = self._head.value(SPACE, f"{self._port}/change")
        return Change(**json.loads(text)) if text else None


def find(port: int) -> tuple[str, Endpoint] | None:
    """The endpoint at this port on this machine, with the address of its cluster's head; None if there is none."""
    for address in _heads():
        try:
            require_ray_at(address, "")
            with Head(address) as head:
                endpoint = Record(head, port).read()
        except (ConfigError, HeadError):  # another user's cluster, or one that ends
            continue
        if endpoint:
            return address, endpoint
    return None


def require_only_new_weights(endpoint: Endpoint, config: ServeConfig) -> None:
    """Refuse a second start that is not a change of weights.

    Raises:
        ConfigError: another setting differs, or none does.
    """
    now = config.model_dump(mode="json")
    different = [name for name in now if name != "weights" and now[name] != endpoint.settings.get(name)]
    where = (
        f"port {endpoint.port} is the running endpoint's (process {endpoint.pid}, model={endpoint.settings['model']})"
    )
    if different:
        raise ConfigError(
            f"{where}, and {', '.join(different)} differ from its own: only weights=DIR can change while it runs; "
            "end it first, or give another port with --port"
        )
    if now["weights"] == endpoint.settings["weights"]:
        raise ConfigError(f"{where}, with these settings: give weights=DIR for new weights, or another --port")


def _heads() -> Iterator[str]:
    given = os.environ.get("RAY_ADDRESS", "")
    if ":" in given and "://" not in given:
        yield given
    yield from sorted(find_gcs_addresses() - {given})
