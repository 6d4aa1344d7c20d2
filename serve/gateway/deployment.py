"""The gateway deployment: serves the HTTP routes and forwards requests to the application's engines."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve.config import LimitsConfig
from serve.gateway.backend import ServeBackend
from serve.gateway.calls import Gate
from serve.gateway.limits import RateLimits
from serve.gateway.routes import Models, make_app
from serve.keys import Keyring, from_plain
from serve.replica import OnNodeAddress

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class GatewaySettings:
    """Constructor arguments of a gateway: plain data, because they are pickled to its replica."""

    models: Models
    limits: LimitsConfig
    cors_origins: list[str] = field(default_factory=list)


@serve.ingress()
class Gateway(OnNodeAddress):
    """The process that handles every request. There is only one, because replicas would not share rate limits."""

    def __init__(
        self, settings: GatewaySettings, engines: dict[str, DeploymentHandle], scorer: DeploymentHandle | None
    ) -> None:
        self._settings = settings
        self._backend = ServeBackend(engines, scorer)
        self._gate = Gate(Keyring([]), RateLimits(settings.limits))

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        return make_app(self._backend, self._gate, settings.models, settings.limits, settings.cors_origins)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Replaces the API keys with `user_config["keys"]` (see `serve.keys.to_plain`). Running requests continue."""
        keys = from_plain(user_config["keys"])
        self._gate.keyring.replace(keys)
        logger.info("API keys: %s", ", ".join(key.name for key in keys) or "none, local requests only")

    async def check_health(self) -> None:
        """Refreshes the queue metric. Serve calls it every few seconds; a gateway that responds is healthy."""
        self._gate.change()
