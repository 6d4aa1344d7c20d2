"""Admits or rejects a request before its body is read, by its headers, origin, API key, and requests per minute."""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.config import LimitsConfig
from serve.errors import ApiError
from serve.gateway.calls import REQUEST_ID, Call, Gate
from serve.keys import VARIABLE

PROBES = frozenset({"/live", "/health", "/ready"})
PUBLIC = PROBES | {"/", "/openapi.json"}
PUBLIC_FOLDER = "/page/"
# Headers that proxies and load balancers add. A local client does not send them.
PROXIED = frozenset({
    "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-original-host", "x-original-url",
    "x-proxyuser-ip", "true-client-ip", "cf-connecting-ip", "fastly-client-ip", "x-envoy-external-address",
})  # fmt: skip
PROXIED_PREFIX = "x-forwarded"


class Guard:
    """ASGI middleware that rejects a request, or sets the key of its call and counts it against the rate limit."""

    def __init__(self, app: ASGIApp, gate: Gate, limits: LimitsConfig) -> None:
        self._app, self._gate, self._limits = app, gate, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._admit(scope, Headers(scope=scope))
            except ApiError as refusal:
                response = refusal.response(scope["path"])
                response.headers["Connection"] = "close"  # otherwise the client could send the body arbitrarily slowly
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        _check_size(headers, self._limits)
        _check_request_id(headers.get("x-request-id"))
        path, call = scope["path"], scope["state"]["call"]
        if self._gate.keyring.is_empty and path not in PROBES:
            check_local(scope, headers)
        if path in PUBLIC or path.startswith(PUBLIC_FOLDER):
            self._recognize(call, scope, headers)
            return
        self._gate.identify(call, _authorization(headers))
        self._gate.limits.admit(call.key)

    def _recognize(self, call: Call, scope: Scope, headers: Headers) -> None:
        """Sets the key of a request to a public route; without a valid key, the call has no holder."""
        try:
            if self._gate.keyring.is_empty:
                check_local(scope, headers)
            self._gate.identify(call, _authorization(headers))
        except ApiError:
            call.holder = None


def check_local(scope: Scope, headers: Headers) -> None:
    """Rejects a request unless it comes directly from this machine and its Host header is a loopback name.

    The Host check prevents DNS rebinding: a web page can make its own host name resolve to this machine, but the
    browser still sends that name. Proxied requests are rejected because a local proxy may forward remote ones.

    Raises:
        ApiError: 403 for a rejected request.
    """
    client = scope.get("client")
    hosts = headers.getlist("host")
    if not client or not _is_loopback(client[0]):
        raise _not_local("it accepts only requests from its own machine")
    if any(name in PROXIED or name.startswith(PROXIED_PREFIX) for name in headers) or scope["http_version"] == "1.0":
        raise _not_local("it does not accept requests through a proxy")
    if len(hosts) != 1 or not _names_loopback(hosts[0]):
        raise _not_local("the Host header must be localhost or a loopback address")


def _authorization(headers: Headers) -> str | None:
    """Returns the `Authorization` header (OpenAI clients), or `X-Api-Key` in that form (Anthropic clients)."""
    given = headers.get("authorization")
    key = headers.get("x-api-key")
    return f"Bearer {key}" if given is None and key is not None else given


def _not_local(why: str) -> ApiError:
    return ApiError(403, f"This endpoint has no API keys, so {why}: set {VARIABLE} or api_keys_file.")


def _check_size(headers: Headers, limits: LimitsConfig) -> None:
    size = sum(len(name) + len(value) for name, value in headers.raw)
    if size > limits.header_bytes or len(headers.raw) > limits.headers:
        raise ApiError(
            431,
            f"The request has {len(headers.raw)} headers with {size:,} bytes in total; the limits are "
            f"{limits.headers} and {limits.header_bytes:,}.",
        )


def _check_request_id(given: str | None) -> None:
    if given is not None and not REQUEST_ID.fullmatch(given):
        raise ApiError(400, "X-Request-ID: must be 1 to 64 letters, digits, '.', '_', ':' and '-'.")


def _names_loopback(host: str) -> bool:
    """Returns whether a Host header, with or without a port, names `localhost` or a loopback address."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = host.partition(":")
    if port and not port.isdecimal():
        return False
    return name.lower().rstrip(".") == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
