"""What a request brings: "Bodies are JSON or form-encoded; an empty body is fine"; of a GET the query."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from ari_conf.web.errors import SENTENCES, Refused

M = TypeVar("M", bound=BaseModel)

MOST_BYTES = 64 * 1024
PATIENCE_S = 10.0
"""Until a body must be here."""
FORM = "application/x-www-form-urlencoded"


def read(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """A dependency that gives the request's parameters as `model`. Raises Refused: 400, 408, 413."""

    async def parameters(request: Request) -> M:
        given = dict(request.query_params) if request.method == "GET" else await _body(request)
        try:
            return model.model_validate(given)
        except ValidationError as error:
            raise Refused(400, "; ".join(_told(e) for e in error.errors(include_url=False))) from None

    return parameters


def described(model: type[BaseModel], *, needed: bool = False) -> dict[str, Any]:
    """For OpenAPI."""
    schema = model.model_json_schema()
    return {
        "requestBody": {
            "required": needed,
            "content": {kind: {"schema": schema} for kind in ("application/json", FORM)},
        }
    }


def described_query(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    required = schema.get("required", ())
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": kind}
            for name, kind in schema["properties"].items()
        ]
    }


def _told(error: Any) -> str:
    """ "a bad parameter (names it and what is allowed)" """
    name = ".".join(str(part) for part in error["loc"]) or "the body"
    if error["type"] == "missing":
        return f"{name} is required"
    return f"{name}: {error['msg'].removeprefix('Value error, ')}"


async def _body(request: Request) -> dict[str, Any]:
    text = await _bytes(request)
    if not text.strip():
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        return _form(text)
    if kind.startswith("multipart/"):
        raise Refused(400, f"the body: send JSON or a form ({FORM})")
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Refused(400, "the body is not valid JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body must be a JSON object")
    return found


async def _bytes(request: Request) -> bytes:
    if int(request.headers.get("content-length") or 0) > MOST_BYTES:
        raise Refused(413, SENTENCES[413], {"Connection": "close"})
    text = bytearray()
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for chunk in request.stream():
                text += chunk
                if len(text) > MOST_BYTES:
                    raise Refused(413, SENTENCES[413], {"Connection": "close"})
    except TimeoutError:
        raise Refused(408, f"the body was not here within {PATIENCE_S:g} s", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "the body ended too early") from None
    return bytes(text)


def _form(text: bytes) -> dict[str, Any]:
    try:
        return dict(parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=100))
    except (UnicodeDecodeError, ValueError):
        raise Refused(400, "the body is not a valid form") from None
