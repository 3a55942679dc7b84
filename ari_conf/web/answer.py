"""How a call is answered: at once, later (callback_url), or as it was before (Idempotency-Key)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from redis import RedisError

from ari_conf.lanes import PREFIX
from ari_conf.web import later
from ari_conf.web.caller import Caller
from ari_conf.web.errors import RETRY_AFTER_S, Refused
from ari_conf.web.models import Asynchronous

DAY_S = 24 * 3600
LOOK_AGAIN_S = 0.05
MOST_OF_A_KEY = 255


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]


Work = Callable[[], Awaitable[Answer]]


class Kept(msgspec.Struct, omit_defaults=True):
    """What an Idempotency-Key stands for."""

    fingerprint: str
    api_id: str
    until_ms: int
    """While there is no answer: by then there must be one."""
    status: int = 0
    body: dict[str, Any] = {}


async def answer(request: Request, caller: Caller, body: Asynchronous, work: Work) -> Response:
    """Does the work, or what the Idempotency-Key says was done before."""
    key = request.headers.get("idempotency-key") if request.method == "POST" else None
    if key is None:
        return _response(await _do(caller, body, work), caller.api_id)
    if not 0 < len(key) <= MOST_OF_A_KEY:
        raise Refused(400, f"Idempotency-Key: 1 to {MOST_OF_A_KEY} characters are allowed")
    return await _once(request, caller, body, work, key)


async def _do(caller: Caller, body: Asynchronous, work: Work) -> Answer:
    if body.callback_url is None:
        return await work()
    await later.begin(caller.parts, caller.auth_id, caller.api_id, body)
    caller.parts.spawn(_later(caller, work))
    # "makes it asynchronous: the reply is {"api_id"} with 202, the result is sent there"
    return Answer(202, {})


def _response(answer: Answer, api_id: str) -> Response:
    if answer.status == 204:
        return Response(status_code=204)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if answer.status == 503 else None
    return JSONResponse({"api_id": api_id, **answer.body}, answer.status, headers)


async def _later(caller: Caller, work: Work) -> None:
    try:
        result = await work()
    except Refused as refused:
        result = Answer(refused.status, {"error": refused.error})
    except RedisError:
        result = Answer(503, {"error": "the service can't be reached now: try again"})
    while True:
        try:
            await later.end(caller.parts, caller.api_id, result.status, result.body)
            return
        except RedisError:
            await asyncio.sleep(1)


# Idempotency: "a repetition within a day gets the first answer".


async def _once(request: Request, caller: Caller, body: Asynchronous, work: Work, key: str) -> Response:
    redis: Any = caller.parts.redis
    asked = f"{caller.auth_id}\0{request.scope['path']}\0{key}"
    place = f"{PREFIX}idempotency:{hashlib.sha256(asked.encode()).hexdigest()}"
    fingerprint = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
    patience_ms = int(caller.parts.settings.command_deadline * 1000) + 2000
    mine = Kept(fingerprint, caller.api_id, int(time.time() * 1000) + patience_ms)
    while not await redis.set(place, msgspec.json.encode(mine), nx=True, ex=DAY_S):
        found = await redis.get(place)
        if found is None:
            continue
        kept = msgspec.json.decode(found, type=Kept)
        if kept.fingerprint != fingerprint:
            raise Refused(400, "Idempotency-Key: it was given with other parameters before; take a new one")
        if kept.status:
            return _response(Answer(kept.status, kept.body), kept.api_id)
        if kept.until_ms < time.time() * 1000:
            await _take_over(caller, place, found)
        await asyncio.sleep(LOOK_AGAIN_S)
    return await _first(caller, body, work, place, mine)


async def _first(caller: Caller, body: Asynchronous, work: Work, place: str, mine: Kept) -> Response:
    redis: Any = caller.parts.redis
    try:
        result = await _do(caller, body, work)
    except Refused as refused:
        if refused.status == 503:
            # A repetition may do it, unless it becomes known meanwhile that it was done.
            mine.until_ms = 0
            await redis.set(place, msgspec.json.encode(mine), ex=DAY_S)
            raise
        result = Answer(refused.status, {"error": refused.error})
    mine.status, mine.body = result.status, result.body
    await redis.set(place, msgspec.json.encode(mine), ex=DAY_S)
    return _response(result, caller.api_id)


async def _take_over(caller: Caller, place: str, found: bytes) -> None:
    """Whoever had it first died over it: what its command was replied is the first answer, else it is done anew."""
    redis: Any = caller.parts.redis
    kept = msgspec.json.decode(found, type=Kept)
    reply = await caller.parts.asker.replied(kept.api_id)
    if reply is None or reply.status == 503:
        await redis.delete(place)
        return
    kept.status, kept.body = reply.status, dict(reply.body)
    await redis.set(place, msgspec.json.encode(kept), ex=DAY_S)
