"""Request parameters: of a GET the query, otherwise the body.

Spec: "Bodies are JSON or form-encoded; an empty body is fine".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from ari_conf.web.errors import ERROR_TEXTS, ApiError

M = TypeVar("M", bound=BaseModel)

MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0
"""Seconds within which a request body must arrive."""
FORM = "application/x-www-form-urlencoded"


def params_dependency(model: type[M], *, with_query: bool = False) -> Callable[[Request], Awaitable[M]]:
    """Return a dependency that reads the request's parameters into `model`. It raises ApiError 400, 408 or 413.

    `with_query`: the query counts as well, whatever the method is."""

    async def parameters(request: Request) -> M:
        query = dict(request.query_params) if request.method == "GET" or with_query else {}
        given = query if request.method == "GET" else query | await _read_given(request)
        try:
            return model.model_validate(given)
        except ValidationError as error:
            raise ApiError(400, "; ".join(_error_text(e) for e in error.errors(include_url=False))) from None

    return parameters


def _error_text(error: Any) -> str:
    """Return the error text for a parameter. Spec: "a bad parameter (names it and what is allowed)"."""
    name = ".".join(str(part) for part in error["loc"]) or "the body"
    if error["type"] == "missing" or (error["type"] == "string_type" and error["input"] is None):
        return f"{name} is required"
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such parameter"
    if error["type"] in ("bool_type", "bool_parsing"):
        return f"{name}: expected true or false"
    if error["type"] == "too_long" and isinstance(error["input"], str):
        return f"{name}: at most {error['ctx']['max_length']} characters are allowed"
    return f"{name}: {error['msg'].removeprefix('Value error, ')}"


async def _read_given(request: Request) -> dict[str, Any]:
    text = await _read_body(request)
    if not text.strip():
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        return _parse_form(text)
    if kind.startswith("multipart/"):
        raise ApiError(400, f"the body: multipart is not allowed; send JSON or a form ({FORM})")
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise ApiError(400, "the body is not valid JSON") from None
    if not isinstance(found, dict):
        raise ApiError(400, "the body must be a JSON object")
    return found


async def _read_body(request: Request) -> bytes:
    if int(request.headers.get("content-length") or 0) > MAX_BODY_BYTES:
        raise ApiError(413, ERROR_TEXTS[413], {"Connection": "close"})
    text = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                text += chunk
                if len(text) > MAX_BODY_BYTES:
                    raise ApiError(413, ERROR_TEXTS[413], {"Connection": "close"})
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise ApiError(400, "the body ended too early") from None
    return bytes(text)


def _parse_form(text: bytes) -> dict[str, Any]:
    try:
        return dict(parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=100))
    except (UnicodeDecodeError, ValueError):
        raise ApiError(400, "the body is not a valid form") from None
