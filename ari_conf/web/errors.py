"""What is refused, always as JSON: `{"api_id", "error"}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis import RedisError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ari_conf.errors import StoreUnavailable, TooManyWaiting
from ari_conf.web.plivo_calls import not_offered

log = structlog.get_logger()

RETRY_AFTER_S = 1
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
NOT_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Of every answer that says nothing else: it is one account's, and what its type says."""
SENTENCES = {
    404: "not found",
    405: "this method is not allowed here",
    413: "the body is too large: 64 KB at most",
}


class Refused(Exception):
    """`error` is a sentence for whoever asked."""

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = dict(headers or {})


def unavailable(error: str) -> Refused:
    return Refused(503, error, {"Retry-After": str(RETRY_AFTER_S)})


def too_much(error: str, retry_after_s: int = RETRY_AFTER_S) -> Refused:
    return Refused(429, error, {"Retry-After": str(retry_after_s)})


def json_error(
    request: Request, status: int, error: str, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    told = {"api_id": request.scope["api_id"], "error": error, **more}
    return JSONResponse(told, status, {**NOT_KEPT, **(headers or {})})


def install(app: FastAPI) -> None:
    handlers: dict[Any, Any] = {
        Refused: _refused,
        HTTPException: _http,
        RequestValidationError: _invalid,
        RedisError: _no_redis,
        StoreUnavailable: _no_redis,
        TooManyWaiting: _too_many,
        Exception: _broken,
    }
    for kind, answer in handlers.items():
        app.add_exception_handler(kind, answer)


async def _refused(request: Request, error: Refused) -> JSONResponse:
    return json_error(request, error.status, error.error, error.headers)


async def _http(request: Request, error: HTTPException) -> JSONResponse:
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # Each method is a route of its own, and says only what itself allows.
        headers["Allow"] = ", ".join(allowed(cast(FastAPI, request.app), request))
    if error.status_code == 404 and (told := not_offered(request.scope["path"])) is not None:
        # Without `objects` Plivo's Python SDK breaks at what was to be a list, instead of telling that it isn't there.
        objects: dict[str, Any] = {"objects": []} if request.method == "GET" else {}
        return json_error(request, 404, told, headers, **objects)
    return json_error(request, error.status_code, SENTENCES.get(error.status_code, str(error.detail)), headers)


def allowed(app: FastAPI, request: Request) -> list[str]:
    asked = [{**request.scope, "method": method} for method in METHODS]
    return [s["method"] for s in asked if any(route.matches(s)[0] == Match.FULL for route in app.routes)]


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    told = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
    return json_error(request, 400, told)


async def _no_redis(request: Request, error: Exception) -> JSONResponse:
    log.error("redis away", reason=str(error) or type(error).__name__)
    return json_error(request, 503, "the service can't be reached now: try again", {"Retry-After": str(RETRY_AFTER_S)})


async def _too_many(request: Request, error: Exception) -> JSONResponse:
    return json_error(request, 429, str(error), {"Retry-After": str(RETRY_AFTER_S)})


async def _broken(request: Request, error: Exception) -> JSONResponse:
    log.error("a request broke: this is a defect of ari_conf, please report it", exc_info=error)
    return json_error(request, 500, "this is a defect of ours; it is in the log under this api_id")
