"""Execution of API calls: immediately, asynchronously (callback_url), or as a repetition (Idempotency-Key)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import Request
from fastapi.responses import Response
from redis import RedisError

from ari_conf.errors import TooManyWaiting
from ari_conf.web import async_calls, idempotency
from ari_conf.web.auth import ApiClient
from ari_conf.web.errors import RETRY_AFTER_S, ApiError, too_much
from ari_conf.web.idempotency import Kept
from ari_conf.web.models import ApiRequest

LOOK_AGAIN_S = 0.05
MOST_OF_A_KEY = 255
TO_REPLY_MS = 2000
"""Milliseconds after the deadline of a command by which the first request with a key has its response. Without one, its
process is dead."""


@dataclass(frozen=True, slots=True)
class ApiResult:
    status: int
    body: dict[str, Any]


Work = Callable[[], Awaitable[ApiResult]]


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


async def execute(request: Request, caller: ApiClient, body: ApiRequest, work: Work) -> Response:
    """Return the response of the work, or the stored response of the first request with the same Idempotency-Key.

    Raises ApiError 400 if the key is not allowed or was used with other parameters."""
    key = request.headers.get("idempotency-key") if request.method == "POST" else None
    if key is None:
        return _response(await _do(caller, body, work), caller.api_id)
    if not 0 < len(key) <= MOST_OF_A_KEY:
        raise ApiError(400, f"Idempotency-Key: 1 to {MOST_OF_A_KEY} characters are allowed")
    return await _run_idempotent(request, caller, body, work, key)


async def reply_only(request: Request, caller: ApiClient, work: Work) -> Response:
    """Return the response of the work. Raises ApiError 400 if the request has a callback_url.

    Lists of callbacks are returned only this way: a list that was itself sent as a callback would be part of the next
    list, so that each would be larger than the one before."""
    if request.query_params.get("callback_url"):
        raise ApiError(400, "callback_url: not allowed for this list, which is only returned as a reply; omit it")
    return _response(await work(), caller.api_id)


async def _do(caller: ApiClient, body: ApiRequest, work: Work) -> ApiResult:
    if body.callback_url is None:
        return await work()
    promises = caller.parts.promises
    if promises[caller.auth_id] >= async_calls.MOST_OF_AN_ACCOUNT:
        raise too_much(
            f"{async_calls.MOST_OF_AN_ACCOUNT} asynchronous calls of this account are in progress: try again later"
        )
    promises[caller.auth_id] += 1
    try:
        await async_calls.register(caller.parts, caller.auth_id, caller.api_id, body)
    except BaseException:
        _one_less(caller)
        raise
    caller.parts.tasks.start(_later(caller, work))
    # Spec: "makes it asynchronous: the reply is {"api_id"} with 202, the result is sent there"
    return ApiResult(202, {})


def _response(answer: ApiResult, api_id: str) -> Response:
    if answer.status == 204:
        return Response(status_code=204)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if answer.status == 503 else None
    return Json({"api_id": api_id, **answer.body}, answer.status, headers)


async def _later(caller: ApiClient, work: Work) -> None:
    try:
        result = await _result(work)
        await async_calls.finish(caller.parts, caller.api_id, result.status, result.body)
    finally:
        _one_less(caller)


async def _result(work: Work) -> ApiResult:
    try:
        return await work()
    except ApiError as refused:
        return ApiResult(refused.status, {"error": refused.error})
    except TooManyWaiting as error:
        return ApiResult(429, {"error": str(error)})
    except RedisError:
        return ApiResult(503, {"error": "the service is temporarily unavailable: try again"})


def _one_less(caller: ApiClient) -> None:
    promises = caller.parts.promises
    promises[caller.auth_id] -= 1
    if not promises[caller.auth_id]:
        del promises[caller.auth_id]


# Idempotency. Spec: "a repetition within a day gets the first answer".


async def _run_idempotent(request: Request, caller: ApiClient, body: ApiRequest, work: Work, key: str) -> Response:
    store = idempotency.Entry(caller.parts.redis, caller.auth_id, request.scope["path"], key)
    mine = Kept(idempotency.fingerprint(body.model_dump_json()), caller.api_id)
    patience_ms = int(caller.parts.settings.command_deadline * 1000) + TO_REPLY_MS
    while (found := await store.begin(mine)) is not None:
        kept, age_ms = found
        if kept.fingerprint != mine.fingerprint:
            raise ApiError(400, "Idempotency-Key: already used with other parameters; use a new key")
        if kept.status:
            return _response(ApiResult(kept.status, kept.body), kept.api_id)
        if kept.undone or age_ms > patience_ms:
            await _recover_abandoned(caller, store, kept)
        else:
            await asyncio.sleep(LOOK_AGAIN_S)
    return await _run_first(caller, body, work, store, mine)


async def _run_first(caller: ApiClient, body: ApiRequest, work: Work, store: idempotency.Entry, mine: Kept) -> Response:
    try:
        result = await _do(caller, body, work)
    except ApiError as refused:
        if refused.status == 503:
            # A repetition may do the work, unless a stored reply then shows that the owner has done it.
            await store.settle(msgspec.structs.replace(mine, undone=True))
        else:
            await store.forget()
        raise
    except TooManyWaiting:
        await store.forget()
        raise
    # A refused request has changed nothing, so a repetition does no harm.
    if result.status < 400:
        await store.settle(msgspec.structs.replace(mine, status=result.status, body=result.body))
    else:
        await store.forget()
    return _response(result, caller.api_id)


async def _recover_abandoned(caller: ApiClient, store: idempotency.Entry, kept: Kept) -> None:
    """Settle a key whose first request got no response, because its process died or the response was 503.

    If the owner has replied to its command, that reply becomes the first response. Otherwise forget the key, so that
    the work is done again."""
    reply = await caller.parts.asker.stored_reply(kept.api_id)
    if reply is None or reply.status >= 400:
        await store.forget()
        return
    await store.settle(msgspec.structs.replace(kept, status=reply.status, body=dict(reply.body), undone=False))
