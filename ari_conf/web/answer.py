"""How a call is answered: at once, later (callback_url), or as it was before (Idempotency-Key)."""

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
from ari_conf.web import idempotency, later
from ari_conf.web.caller import Caller
from ari_conf.web.errors import RETRY_AFTER_S, Refused, too_much
from ari_conf.web.idempotency import Kept
from ari_conf.web.models import Asynchronous

LOOK_AGAIN_S = 0.05
MOST_OF_A_KEY = 255
TO_REPLY_MS = 2000
"""Beyond the deadline of a command: by then the first request with a key has its answer, or its process is dead."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]


Work = Callable[[], Awaitable[Answer]]


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


async def answer(request: Request, caller: Caller, body: Asynchronous, work: Work) -> Response:
    """Does the work, or what the Idempotency-Key says was done before."""
    key = request.headers.get("idempotency-key") if request.method == "POST" else None
    if key is None:
        return _response(await _do(caller, body, work), caller.api_id)
    if not 0 < len(key) <= MOST_OF_A_KEY:
        raise Refused(400, f"Idempotency-Key: 1 to {MOST_OF_A_KEY} characters are allowed")
    return await _once(request, caller, body, work, key)


async def reply_only(request: Request, caller: Caller, work: Work) -> Response:
    """For lists that hold what was sent to callback URLs: sent there itself, such a list would be in the next one, and
    that in the one after it, each larger than the one before."""
    if request.query_params.get("callback_url"):
        raise Refused(400, "callback_url: this list is only given as a reply; ask without it")
    return _response(await work(), caller.api_id)


async def _do(caller: Caller, body: Asynchronous, work: Work) -> Answer:
    if body.callback_url is None:
        return await work()
    promises = caller.parts.promises
    if promises[caller.auth_id] >= later.MOST_OF_AN_ACCOUNT:
        raise too_much(f"more than {later.MOST_OF_AN_ACCOUNT} asynchronous calls of this account are under way")
    promises[caller.auth_id] += 1
    try:
        await later.begin(caller.parts, caller.auth_id, caller.api_id, body)
    except BaseException:
        _one_less(caller)
        raise
    caller.parts.tasks.start(_later(caller, work))
    # "makes it asynchronous: the reply is {"api_id"} with 202, the result is sent there"
    return Answer(202, {})


def _response(answer: Answer, api_id: str) -> Response:
    if answer.status == 204:
        return Response(status_code=204)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if answer.status == 503 else None
    return Json({"api_id": api_id, **answer.body}, answer.status, headers)


async def _later(caller: Caller, work: Work) -> None:
    try:
        result = await _result(work)
        await later.finish(caller.parts, caller.api_id, result.status, result.body)
    finally:
        _one_less(caller)


async def _result(work: Work) -> Answer:
    try:
        return await work()
    except Refused as refused:
        return Answer(refused.status, {"error": refused.error})
    except TooManyWaiting as error:
        return Answer(429, {"error": str(error)})
    except RedisError:
        return Answer(503, {"error": "the service can't be reached now: try again"})


def _one_less(caller: Caller) -> None:
    promises = caller.parts.promises
    promises[caller.auth_id] -= 1
    if not promises[caller.auth_id]:
        del promises[caller.auth_id]


# Idempotency: "a repetition within a day gets the first answer".


async def _once(request: Request, caller: Caller, body: Asynchronous, work: Work, key: str) -> Response:
    store = idempotency.Entry(caller.parts.redis, caller.auth_id, request.scope["path"], key)
    mine = Kept(idempotency.fingerprint(body.model_dump_json()), caller.api_id)
    patience_ms = int(caller.parts.settings.command_deadline * 1000) + TO_REPLY_MS
    while (found := await store.begin(mine)) is not None:
        kept, age_ms = found
        if kept.fingerprint != mine.fingerprint:
            raise Refused(400, "Idempotency-Key: it was given with other parameters before; take a new one")
        if kept.status:
            return _response(Answer(kept.status, kept.body), kept.api_id)
        if kept.undone or age_ms > patience_ms:
            await _take_over(caller, store, kept)
        else:
            await asyncio.sleep(LOOK_AGAIN_S)
    return await _first(caller, body, work, store, mine)


async def _first(caller: Caller, body: Asynchronous, work: Work, store: idempotency.Entry, mine: Kept) -> Response:
    try:
        result = await _do(caller, body, work)
    except Refused as refused:
        if refused.status == 503:
            # A repetition may do it, unless it becomes known meanwhile that it was done.
            await store.settle(msgspec.structs.replace(mine, undone=True))
        else:
            await store.forget()
        raise
    except TooManyWaiting:
        await store.forget()
        raise
    # What was refused was not done: its repetition does no harm.
    if result.status < 400:
        await store.settle(msgspec.structs.replace(mine, status=result.status, body=result.body))
    else:
        await store.forget()
    return _response(result, caller.api_id)


async def _take_over(caller: Caller, store: idempotency.Entry, kept: Kept) -> None:
    """The first process died over it: what its command was replied is the first answer, else it is done again."""
    reply = await caller.parts.asker.replied(kept.api_id)
    if reply is None or reply.status >= 400:
        await store.forget()
        return
    await store.settle(msgspec.structs.replace(kept, status=reply.status, body=dict(reply.body), undone=False))
