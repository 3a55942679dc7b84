"""Execution of API calls: immediately, asynchronously (callback_url), or as a repetition (Idempotency-Key)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from fastapi import Request
from fastapi.responses import Response
from redis import RedisError

from ari_conf.errors import HistoryUnavailable, TooManyWaiting
from ari_conf.web import async_calls, idempotency
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import ApiClient
from ari_conf.web.errors import RETRY_AFTER_S, ApiError, history_error, too_much
from ari_conf.web.idempotency import IdempotencyEntry, IdempotencyRecord
from ari_conf.web.models import ApiRequest

log = structlog.get_logger()

POLL_INTERVAL_S = 0.05
MAX_KEY_CHARS = 255
REPLY_GRACE_MS = 2000
"""Milliseconds after the deadline of a command by which the first request with a key has its response. Without one, its
process is dead."""


Work = Callable[[], Awaitable[ApiResult]]


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


async def execute(request: Request, client: ApiClient, body: ApiRequest, work: Work) -> Response:
    """Return the response of the work, or the stored response of the first request with the same Idempotency-Key.

    Raises ApiError 400 if the key is not allowed or was used with other parameters."""
    key = request.headers.get("idempotency-key") if request.method == "POST" else None
    if key is None:
        return _response(await _start_work(client, body, work), client.api_id)
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise ApiError(400, f"Idempotency-Key: 1 to {MAX_KEY_CHARS} characters are allowed")
    return await _run_idempotent(request, client, body, work, key)


async def reply_only(request: Request, client: ApiClient, work: Work) -> Response:
    """Return the response of the work. Raises ApiError 400 if the request has a callback_url.

    Lists of callbacks are returned only this way: a list that was itself sent as a callback would be part of the next
    list, so that each would be larger than the one before."""
    if request.query_params.get("callback_url"):
        raise ApiError(400, "callback_url: not allowed for this list, which is only returned as a reply; omit it")
    return _response(await work(), client.api_id)


async def _start_work(client: ApiClient, body: ApiRequest, work: Work) -> ApiResult:
    if body.callback_url is None:
        return await work()
    counts = client.resources.async_call_counts
    if counts[client.auth_id] >= async_calls.MAX_PER_ACCOUNT:
        raise too_much(
            f"{async_calls.MAX_PER_ACCOUNT} asynchronous calls of this account are in progress: try again later"
        )
    counts[client.auth_id] += 1
    deadline_s = client.resources.settings.command_deadline
    try:
        await async_calls.register(client.resources.redis, client.auth_id, client.api_id, body, deadline_s=deadline_s)
    except BaseException:
        _release_slot(client)
        raise
    client.resources.tasks.start(_run_asynchronously(client, work))
    # Spec: "makes it asynchronous: the reply is {"api_id"} with 202, the result is sent there"
    return ApiResult(202, {})


def _response(result: ApiResult, api_id: str) -> Response:
    if result.status == 204:
        return Response(status_code=204)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if result.status == 503 else None
    return JsonResponse({"api_id": api_id, **result.body}, result.status, headers)


async def _run_asynchronously(client: ApiClient, work: Work) -> None:
    try:
        result = await _run_work(work)
        await async_calls.finish(client.resources.redis, client.api_id, result.status, result.body)
    finally:
        _release_slot(client)


async def _run_work(work: Work) -> ApiResult:
    try:
        return await work()
    except ApiError as error:
        return ApiResult(error.status, {"error": error.error})
    except TooManyWaiting as error:
        return ApiResult(429, {"error": str(error)})
    except HistoryUnavailable as error:
        refusal = history_error(error)
        return ApiResult(refusal.status, {"error": refusal.error})
    except RedisError:
        return ApiResult(503, {"error": "the service is temporarily unavailable: try again"})


def _release_slot(client: ApiClient) -> None:
    counts = client.resources.async_call_counts
    counts[client.auth_id] -= 1
    if not counts[client.auth_id]:
        del counts[client.auth_id]


# Idempotency. Spec: "a repetition within a day gets the first answer".


async def _run_idempotent(request: Request, client: ApiClient, body: ApiRequest, work: Work, key: str) -> Response:
    entry = IdempotencyEntry(client.resources.redis, client.auth_id, request.scope["path"], key)
    own_record = IdempotencyRecord(idempotency.fingerprint(body.model_dump_json()), client.api_id)
    timeout_ms = int(client.resources.settings.command_deadline * 1000) + REPLY_GRACE_MS
    while (found := await entry.begin(own_record)) is not None:
        first, age_ms = found
        if first.fingerprint != own_record.fingerprint:
            raise ApiError(400, "Idempotency-Key: already used with other parameters; use a new key")
        if first.result is not None:
            return _response(first.result, first.api_id)
        if first.may_repeat or age_ms > timeout_ms:
            await _settle_abandoned(client, entry, first)
        else:
            await asyncio.sleep(POLL_INTERVAL_S)
    return await _run_first(client, body, work, entry, own_record)


async def _run_first(
    client: ApiClient, body: ApiRequest, work: Work, entry: IdempotencyEntry, own_record: IdempotencyRecord
) -> Response:
    try:
        result = await _start_work(client, body, work)
    except ApiError as error:
        if error.status == 503:
            # A repetition may do the work, unless a stored reply then shows that the owner has done it.
            await entry.settle(msgspec.structs.replace(own_record, may_repeat=True))
        else:
            await entry.forget()
        raise
    except TooManyWaiting:
        await entry.forget()
        raise
    # A refused request has changed nothing, so a repetition does no harm.
    if result.status < 400:
        try:
            await entry.settle(msgspec.structs.replace(own_record, result=result))
        except RedisError as error:
            # The work is done, so the response must not be a 503. A repetition gets the reply that the owner stored.
            log.warning("idempotency record not written", reason=str(error) or type(error).__name__)
    else:
        await entry.forget()
    return _response(result, client.api_id)


async def _settle_abandoned(client: ApiClient, entry: IdempotencyEntry, first: IdempotencyRecord) -> None:
    """Settle a key whose first request got no response, because its process died or the response was 503.

    If the owner has replied to its command, that reply becomes the first response. Otherwise forget the key, so that
    the work is done again."""
    reply = await client.resources.command_client.stored_reply(first.api_id)
    if reply is None or reply.status >= 400:
        await entry.forget()
        return
    result = ApiResult(reply.status, dict(reply.body))
    await entry.settle(msgspec.structs.replace(first, result=result, may_repeat=False))
