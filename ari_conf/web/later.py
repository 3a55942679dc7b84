"""Asynchronous calls: what is done after the reply, and whose result is sent to callback_url. None is forgotten.

| key | is |
|---|---|
| ari_conf:later | hash, api_id -> JSON: whom to tell what becomes of it, and until when its process must have done so |

Should that process die over it, another tells: the owner's reply, if there was one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import structlog
from redis import RedisError
from redis.asyncio import Redis

from ari_conf import outbox
from ari_conf.core.effects import PostCallback, Reply
from ari_conf.lane_scripts import READY
from ari_conf.lanes import PREFIX, prefix
from ari_conf.settings import Settings
from ari_conf.web.models import Asynchronous

log = structlog.get_logger()

KEY = f"{PREFIX}later"
LOOK_EVERY_S = 5.0
GRACE_S = 10.0
"""Beyond the deadline of a command: within it the process that has taken the call has told."""
INTERRUPTED = Reply("", 503, (("error", "the service was interrupted: look whether it was done, or try again"),))

# Whoever takes it out tells, and nobody else.
_END = (
    READY
    + """
if redis.call('HDEL', KEYS[2], ARGV[1]) == 1 and redis.call('RPUSH', P..'lane:'..ARGV[2], ARGV[3]) == 1 then
  ready(ARGV[2])
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
    """From here on somebody will be told. Raises RedisError."""
    redis: Any = parts.redis
    until_ms = _now_ms() + int((parts.settings.command_deadline + GRACE_S) * 1000)
    promised = Promised(auth_id, body.callback_url or "", body.callback_method, until_ms)
    await redis.hset(KEY, api_id, msgspec.json.encode(promised))


async def end(parts: Parts, api_id: str, status: int, body: dict[str, Any]) -> None:
    """Tells it, unless it was told. Raises RedisError."""
    redis: Any = parts.redis
    found = await redis.hget(KEY, api_id)
    if found is None:
        return
    promised = msgspec.json.decode(found, type=Promised)
    # In ASCII: Plivo's SDK can't check the signature of a query that holds anything else.
    text = json.dumps({"api_id": api_id, **body})
    params = (("api_id", api_id), ("status_code", str(status)), ("response", text))
    callback = PostCallback(api_id, promised.auth_id, promised.url, promised.method, params)
    await redis.eval(_END, 2, prefix(outbox.QUEUE), KEY, api_id, *outbox.entry(callback, _now_ms()))


async def watch(parts: Parts, replied: Callable[[str], Awaitable[Reply | None]]) -> None:
    """For ever: what a process that died has promised is kept."""
    while True:
        try:
            await _keep(parts, replied)
        except (RedisError, OSError) as error:
            log.debug("promises not looked at", reason=str(error))
        await asyncio.sleep(LOOK_EVERY_S)


async def _keep(parts: Parts, replied: Callable[[str], Awaitable[Reply | None]]) -> None:
    redis: Any = parts.redis
    async for api_id, text in redis.hscan_iter(KEY):
        if msgspec.json.decode(text, type=Promised).until_ms > _now_ms():
            continue
        name = api_id.decode()
        reply = await replied(name) or INTERRUPTED
        log.warning("an asynchronous call was left undone by its process", api_id=name, status=reply.status)
        await end(parts, name, reply.status, dict(reply.body))


def _now_ms() -> int:
    return int(time.time() * 1000)
