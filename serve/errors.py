"""API errors, in OpenAI's format {"error": {"message", "type", "param", "code"}} or in Anthropic's."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

logger = logging.getLogger("ray.serve")

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "overloaded_error",
    504: "timeout_error",
}


MESSAGES = "/v1/messages"
"""Path of Anthropic's API, whose errors have their own format."""
_ANTHROPIC_TYPES = {413: "request_too_large", 500: "api_error"}

_TEXT = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_BODY = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": _TEXT, "code": _TEXT},
        }
    },
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"description": HTTPStatus(status).phrase, "content": {"application/json": {"schema": _BODY}}}
    for status in _TYPES
}
"""Error responses of every route, for /openapi.json."""


class ApiError(Exception):
    """An error with an HTTP status, returned to the client.

    Attributes:
        status: the HTTP status.
        message: what is wrong and what to do.
        param: the offending argument of the body.
        code: a machine-readable error code.
        retry_after_s: seconds after which the client may retry, sent as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_s = retry_after_s

    def response(self, path: str) -> JSONResponse:
        """Returns the HTTP response to a request of `path`, in the error format of that path's API."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(path), self.status, headers)

    def body(self, path: str) -> dict[str, Any]:
        """Returns the error as JSON, in the format of the API that `path` belongs to."""
        # A message that quotes a key of the body may contain a lone surrogate, which UTF-8 cannot encode.
        message = self.message.encode("utf-8", "replace").decode()
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        if path.startswith(MESSAGES):
            return {"type": "error", "error": {"type": _ANTHROPIC_TYPES.get(self.status, kind), "message": message}}
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}


def add_error_handlers(app: FastAPI) -> None:
    """Registers handlers that return every error of `app` in the format of `ApiError`, without tracebacks."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failure)


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error.response(request.url.path)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Reports the first validation error of a body. Values are not quoted: they may contain patient data."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(map(str, _path(error.body, first["loc"], missing=first["type"] == "missing"))) or None
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {first['ctx']['error']}.").response(request.url.path)
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        text = "is not a parameter of this endpoint; remove it"
    elif first["type"] == "model_attributes_type" and not param:
        text = "The body must be a JSON object"
    elif first["type"] == "missing":
        text = "is required" if param else "The body is missing: send JSON"
    message = f"{param}: {text}" if param else text
    return ApiError(400, f"{message}.", param=param and param.encode("utf-8", "replace").decode()).response(
        request.url.path
    )


def _path(body: object, loc: Sequence[str | int], *, missing: bool) -> list[str | int]:
    """Returns the keys and indices of the body in pydantic's `loc`, without the names of union members."""
    path: list[str | int] = []
    for part in loc:
        if (isinstance(body, dict) and part in body) or (isinstance(body, list) and isinstance(part, int)):
            body = body[part]  # type: ignore[index]
            path.append(part)
    return [*path, loc[-1]] if missing and loc[-1] != "body" else path


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    message = {
        404: f"There is no {request.url.path}; see /openapi.json for all routes.",
        405: f"{request.url.path} does not support {request.method}.",
        400: "The body cannot be read: send JSON in UTF-8.",
    }.get(status, HTTPStatus(status).phrase)
    return ApiError(status, message).response(request.url.path)


async def _failure(request: Request, error: Exception) -> JSONResponse:
    logger.error("unexpected failure of %s %s", request.method, request.url.path, exc_info=error)
    return ApiError(500, "The endpoint failed on this request; see its log for the request id.").response(
        request.url.path
    )
