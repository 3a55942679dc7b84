"""Error responses of the API, always JSON: `{"api_id", "error"}`."""

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

from ari_conf.errors import REPORT_HINT, HistoryTooSlow, HistoryUnavailable, StoreUnavailable, TooManyWaiting
from ari_conf.web.plivo_calls import not_offered

log = structlog.get_logger()

RETRY_AFTER_S = 1
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
DEFAULT_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Default headers of every response: it belongs to one account, and its content type is correct."""
ERROR_TEXTS = {
    404: "not found",
    405: "this method is not allowed: use a method that the Allow header lists",
    413: "the body is too large: 64 KB at most",
}


class ApiError(Exception):
    """Error response of the API. `error`: a sentence for the API client."""

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = dict(headers or {})


def unavailable(error: str) -> ApiError:
    return ApiError(503, error, {"Retry-After": str(RETRY_AFTER_S)})


def bucket_unavailable() -> ApiError:
    return unavailable("the bucket is temporarily unreachable: try again")


def history_error(error: HistoryUnavailable) -> ApiError:
    """Return the reply to a query of the history that failed. Its reason names the database, so it is only logged."""
    if isinstance(error, HistoryTooSlow):
        return ApiError(400, str(error))
    log.error("history unavailable", reason=str(error))
    return unavailable("the history is temporarily unavailable, live conferences are not affected: try again later")


def too_much(error: str, retry_after_s: int = RETRY_AFTER_S) -> ApiError:
    return ApiError(429, error, {"Retry-After": str(retry_after_s)})


def json_error(
    request: Request, status: int, error: str, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    body = {"api_id": request.scope["api_id"], "error": error, **more}
    return JSONResponse(body, status, {**DEFAULT_HEADERS, **(headers or {})})


def install(app: FastAPI) -> None:
    handlers: dict[Any, Any] = {
        ApiError: _handle_api_error,
        HTTPException: _handle_http_exception,
        RequestValidationError: _handle_invalid_request,
        RedisError: _handle_redis_error,
        StoreUnavailable: _handle_redis_error,
        TooManyWaiting: _handle_too_many_waiting,
        HistoryUnavailable: _handle_history_unavailable,
        Exception: _handle_exception,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _handle_api_error(request: Request, error: ApiError) -> JSONResponse:
    return json_error(request, error.status, error.error, error.headers)


async def _handle_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # Each method is a separate route, and its 405 names only its own method.
        headers["Allow"] = ", ".join(allowed_methods(cast(FastAPI, request.app), request))
    if error.status_code == 404 and (text := not_offered(request.scope["path"])) is not None:
        # Without `objects`, Plivo's Python SDK fails while it reads the list, instead of reporting the error.
        objects: dict[str, Any] = {"objects": []} if request.method == "GET" else {}
        return json_error(request, 404, text, headers, **objects)
    return json_error(request, error.status_code, ERROR_TEXTS.get(error.status_code, str(error.detail)), headers)


def allowed_methods(app: FastAPI, request: Request) -> list[str]:
    scopes = [{**request.scope, "method": method} for method in METHODS]
    return [s["method"] for s in scopes if any(route.matches(s)[0] == Match.FULL for route in app.routes)]


async def _handle_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    text = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
    return json_error(request, 400, text)


async def _handle_redis_error(request: Request, error: Exception) -> JSONResponse:
    log.error("redis unavailable", reason=str(error) or type(error).__name__)
    return json_error(
        request, 503, "the service is temporarily unavailable: try again", {"Retry-After": str(RETRY_AFTER_S)}
    )


async def _handle_too_many_waiting(request: Request, error: Exception) -> JSONResponse:
    return json_error(request, 429, str(error), {"Retry-After": str(RETRY_AFTER_S)})


async def _handle_history_unavailable(request: Request, error: HistoryUnavailable) -> JSONResponse:
    return await _handle_api_error(request, history_error(error))


async def _handle_exception(request: Request, error: Exception) -> JSONResponse:
    log.error("request raised", hint=REPORT_HINT, exc_info=error)
    return json_error(request, 500, "internal error: see the server log for this api_id")
