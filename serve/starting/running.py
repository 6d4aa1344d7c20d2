"""Records of running endpoints in the cluster's key-value store, which also holds requests for new weights.

The store is on the cluster's head node, so anyone who can reach the head (with its token, if it has one) can request
new weights.
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
    """The record that a running endpoint writes about itself."""

    port: int
    settings: dict[str, Any]
    pid: int = field(default_factory=os.getpid)
    at: float = field(default_factory=time.time)
    """Time of the last write, which the endpoint repeats while it runs; Unix time, seconds."""


@dataclass(frozen=True)
class Change:
    """A request for new weights, and its outcome."""

    weights: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    done: bool = False
    error: str = ""


class Record:
    """The record of the endpoint at one port, in the key-value store of one cluster."""

    def __init__(self, head: Head, port: int) -> None:
        self._head, self._port = head, port

    def write(self, endpoint: Endpoint) -> None:
        """Sets the endpoint's time to now, and writes its record."""
        endpoint.at = time.time()
        self._head.set_value(SPACE, f"{self._port}/endpoint", json.dumps(asdict(endpoint)).encode())

    def read(self) -> Endpoint | None:
        """Returns the endpoint's record; None if there is none, or it has not been written for `_STALE_S` seconds."""
        text = self._head.value(SPACE, f"{self._port}/endpoint")
        endpoint = Endpoint(**json.loads(text)) if text else None
        return endpoint if endpoint and time.time() - endpoint.at < _STALE_S else None

    def ask(self, change: Change) -> None:
        """Writes a request for new weights, or its outcome."""
        self._head.set_value(SPACE, f"{self._port}/change", json.dumps(asdict(change)).encode())

    def asked(self) -> Change | None:
        """Returns the latest request for new weights; None if there is none."""
        text = self._head.value(SPACE, f"{self._port}/change")
        return Change(**json.loads(text)) if text else None


def find(port: int) -> tuple[str, Endpoint] | None:
    """Returns the head address and the record of the endpoint at a port of this machine; None if there is none."""
    for address in _heads():
        try:
            require_ray_at(address, "")
            with Head(address) as head:
                endpoint = Record(head, port).read()
        except (ConfigError, HeadError):  # another user's cluster, or one that is shutting down
            continue
        if endpoint:
            return address, endpoint
    return None


def require_only_new_weights(endpoint: Endpoint, config: ServeConfig) -> None:
    """Rejects a second start at the same port unless `weights` is the only setting that differs.

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
            f"{where}, and {', '.join(different)} differ from its settings: only weights=DIR can change while it runs; "
            "stop it first, or give another port with --port"
        )
    if now["weights"] == endpoint.settings["weights"]:
        raise ConfigError(f"{where}, with these settings: give weights=DIR for new weights, or another --port")


def _heads() -> Iterator[str]:
    given = os.environ.get("RAY_ADDRESS", "")
    if ":" in given and "://" not in given:
        yield given
    yield from sorted(find_gcs_addresses() - {given})
