"""Request middleware: gives each request its api_id and its path as sent, logs it, and counts it in the metrics."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from urllib.parse import unquote

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ari_conf.web.errors import DEFAULT_HEADERS, ApiError

log = structlog.get_logger()

ACCOUNT = "/v1/Account/{auth_id}"
"""Path prefix of every API call."""

Observe = Callable[[str, str, int, float], None]
"""Callback with (method, path of the route, status, seconds)."""


class RequestMiddleware:
    """Middleware for all requests. Routes match the path as sent, still percent-encoded: a name may contain a `/`."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["api_id"] = api_id = str(uuid.uuid4())
        # A list, because a router passes on a copy of the scope.
        scope["routes"] = routes = list[str]()
        path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
        # Spec: "A trailing slash is optional."
        scope["path"] = path if path.endswith("/") or not path.startswith("/v1/") else path + "/"
        began, status, seconds = time.perf_counter(), 500, 0.0

        async def sending(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
                # Measured until the response starts: an event stream continues for hours.
                status, seconds = message["status"], time.perf_counter() - began
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = routes[0] if routes else "none"
            self._observe(scope["method"], route, status, seconds)
            if routes:
                ms = round(seconds * 1000)
                log.info("api", method=scope["method"], path=route, status=status, ms=ms, api_id=api_id)


def decode_path_part(part: str) -> str:
    """Return a percent-decoded part of a path. Raises ApiError 404 if it is not UTF-8."""
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise ApiError(404, "not found") from None
