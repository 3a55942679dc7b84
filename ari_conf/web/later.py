"""Asynchronous calls: what is done after the reply, and whose result is sent to callback_url. None is forgotten.

| key | is |
|---|---|
| ari_conf:later | hash, api_id -> JSON: who receives the result, and until when its process must have sent it |

Should that process die over it, another sends the result: the owner's reply, if there was one. The clock is Redis'. A
result that is longer than a callback may be is not sent; a 413 in its place says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import structlog
from redis import RedisError
from redis.asyncio import Redis

from ari_conf import outbox
from ari_conf.core.effects import PostCallback, Reply
from ari_conf.errors import CallbackTooLong
from ari_conf.lane_scripts import READY
from ari_conf.lanes import PREFIX, prefix
from ari_conf.problems import Problem, problems_key
from ari_conf.settings import Settings
from ari_conf.web.models import Asynchronous

log = structlog.get_logger()

KEY = f"{PREFIX}later"
LOOK_EVERY_S = 5.0
GRACE_S = 10.0
"""Beyond the deadline of a command: within it the process that has taken the call has sent the result."""
MOST_OF_AN_ACCOUNT = 100
"""Asynchronous calls of an account that one process does at a time; one more is refused."""
AGAIN_S = 1.0
TRIES = 60
"""Of the process that has done the call, one a second, to put the result into its lane. Then it is left to `watch`."""
GIVEN_UP_MS = 3600 * 1000
"""For so long after that `watch` tries, while Redis answers but refuses; then the account has a problem instead."""
READ_AT_ONCE = 100
INTERRUPTED = Reply("", 503, (("error", "the service was interrupted: look whether it was done, or try again"),))

# One process sends the result, and no other. If Redis refuses the result the script ends there: the promise stays.
_END = (
    READY
    + """
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  append(ARGV[2], ARGV[3])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
"""
)


class Promised(msgspec.Struct, frozen=True):
    auth_id: str
    url: str
    method: str
    until_ms: int


class Parts(Protocol):
    settings: Settings
    redis: Redis


async def begin(parts: Parts, auth_id: str, api_id: str, body: Asynchronous) -> None:
    """From here on the result will be sent. Raises RedisError."""
    redis: Any = parts.redis
    until_ms = await now_ms(redis) + int((parts.settings.command_deadline + GRACE_S) * 1000)
    promised = Promised(auth_id, body.callback_url or "", body.callback_method, until_ms)
    await redis.hset(KEY, api_id, msgspec.json.encode(promised))


async def finish(parts: Parts, api_id: str, status: int, body: dict[str, Any]) -> None:
    """Sends the result as soon as Redis takes it, within TRIES."""
    reason = ""
    for _ in range(TRIES):
        try:
            await end(parts, api_id, status, body)
            return
        except (RedisError, OSError) as error:
            reason = str(error) or type(error).__name__
        await asyncio.sleep(AGAIN_S)
    log.error("an asynchronous call's result can't be queued yet", api_id=api_id, tries=TRIES, reason=reason)


async def end(parts: Parts, api_id: str, status: int, body: dict[str, Any]) -> None:
    """Sends the result, unless that was done. Raises RedisError."""
    redis: Any = parts.redis
    found = await redis.hget(KEY, api_id)
    if found is None:
        return
    promised = msgspec.json.decode(found, type=Promised)
    now = await now_ms(redis)
    try:
        entry = outbox.entry(_callback(promised, api_id, status, body), now)
    except CallbackTooLong:
        error = "the result is too long to be sent: ask without callback_url"
        entry = outbox.entry(_callback(promised, api_id, 413, {"error": error}), now)
    await redis.eval(_END, 2, prefix(outbox.QUEUE), KEY, api_id, *entry)


def _callback(promised: Promised, api_id: str, status: int, body: dict[str, Any]) -> PostCallback:
    # In ASCII: Plivo's SDK can't check the signature of a query that holds anything else.
    text = json.dumps({"api_id": api_id, **body})
    params = (("api_id", api_id), ("status_code", str(status)), ("response", text))
    return PostCallback(api_id, promised.auth_id, promised.url, promised.method, params)


async def watch(parts: Parts, replied: Callable[[str], Awaitable[Reply | None]]) -> None:
    """Runs until it is canceled: keeps what a process that died has promised."""
    while True:
        try:
            await _keep(parts, replied)
        except (RedisError, OSError) as error:
            log.debug("promises not looked at", reason=str(error))
        await asyncio.sleep(LOOK_EVERY_S)


async def _keep(parts: Parts, replied: Callable[[str], Awaitable[Reply | None]]) -> None:
    redis: Any = parts.redis
    now = await now_ms(redis)
    async for api_id, text in redis.hscan_iter(KEY, count=READ_AT_ONCE):
        name = api_id.decode(errors="replace")
        try:
            promised = msgspec.json.decode(text, type=Promised)
        except msgspec.MsgspecError as error:
            # It can't be told whom it was promised, now or later.
            log.error("an asynchronous call can't be read and is dropped", api_id=name, reason=str(error))
            await redis.hdel(KEY, api_id)
            continue
        if promised.until_ms <= now:
            await _keep_one(parts, name, promised, replied, given_up=promised.until_ms + GIVEN_UP_MS < now)


async def _keep_one(
    parts: Parts,
    api_id: str,
    promised: Promised,
    replied: Callable[[str], Awaitable[Reply | None]],
    *,
    given_up: bool,
) -> None:
    try:
        reply = await replied(api_id) or INTERRUPTED
        log.warning("an asynchronous call was left undone by its process", api_id=api_id, status=reply.status)
        await end(parts, api_id, reply.status, dict(reply.body))
    except (RedisError, OSError, msgspec.MsgspecError, KeyError, TypeError) as error:
        # This one alone: the others are looked at all the same.
        reason = str(error) or type(error).__name__
        log.error("an asynchronous call's result can't be queued", api_id=api_id, reason=reason, given_up=given_up)
        if given_up:
            await _give_up(parts, api_id, promised, reason)


async def _give_up(parts: Parts, api_id: str, promised: Promised, reason: str) -> None:
    redis: Any = parts.redis
    text = f"the result of the asynchronous call {api_id} could not be queued and is not sent: {reason}"
    problem, key = Problem(await now_ms(redis), "", text), problems_key(promised.auth_id)
    pipe = redis.pipeline(transaction=True)
    pipe.hdel(KEY, api_id).lpush(key, msgspec.json.encode(problem)).ltrim(key, 0, parts.settings.problems_kept - 1)
    await pipe.execute()


async def now_ms(redis: Any) -> int:
    """By Redis' clock, which all processes share."""
    seconds, micros = await redis.time()
    return int(seconds) * 1000 + int(micros) // 1000
