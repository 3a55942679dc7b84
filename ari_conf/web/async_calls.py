"""Asynchronous API calls: the work is done after the reply, and the result is sent to callback_url. No result is
forgotten.

| key | value |
|---|---|
| ari_conf:pending-results | hash, api_id -> JSON: receiver of the result, deadline of the process that has the call |

If that process dies before it has sent the result, another web process sends one: the owner's reply, or a 503 if there
is none. The clock is Redis'. A result that exceeds the size limit of callbacks is replaced by a 413.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from redis import RedisError

from ari_conf.common import lua
from ari_conf.common.redis_keys import PENDING_RESULTS_KEY as KEY
from ari_conf.core.effects import CommandReply, PostCallback
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import CallbackTooLong
from ari_conf.queues import outbox
from ari_conf.queues.partitioned_queue import prefix
from ari_conf.store.problems import Problem, encoded, problems_key
from ari_conf.web.models import ApiRequest

log = structlog.get_logger()

POLL_INTERVAL_S = 5.0
GRACE_S = 10.0
"""Seconds after the deadline of a command within which the process that accepted the call normally sends the result."""
MAX_PER_ACCOUNT = 100
"""Maximum number of an account's asynchronous calls in progress in one process; one more is refused."""
RETRY_DELAY_S = 1.0
MAX_ATTEMPTS = 60
"""Attempts, one per second, of the process that executed the call to queue the result. After that, `AbandonedCalls`
takes over."""
RESULT_TTL_MS = 3600 * 1000
"""Milliseconds after the deadline for which `AbandonedCalls` retries while Redis refuses the result. After that, the
account gets a problem instead."""
SCAN_BATCH = 100
INTERRUPTED = CommandReply(
    "", 503, (("error", "the service was interrupted: check whether it was done, or try again"),)
)

StoredReply = Callable[[str], Awaitable[CommandReply | None]]
"""Function that returns the owner's stored reply to a command, or None."""

_SEND_RESULT = lua.load("ari_conf.web.scripts.send_result")


class PendingResult(msgspec.Struct, frozen=True):
    auth_id: str
    url: str
    method: str
    until_ms: int


async def register(redis: Any, auth_id: str, api_id: str, body: ApiRequest, *, deadline_s: float) -> None:
    """Store a pending result. From here on, a result will be sent. Raises RedisError.

    `deadline_s`: seconds within which a command is answered."""
    until_ms = await now_ms(redis) + int((deadline_s + GRACE_S) * 1000)
    pending = PendingResult(auth_id, body.callback_url or "", body.callback_method, until_ms)
    await redis.hset(KEY, api_id, msgspec.json.encode(pending))


async def finish(redis: Any, api_id: str, status: int, body: dict[str, Any]) -> None:
    """Send the result as soon as Redis accepts it, in at most MAX_ATTEMPTS attempts."""
    reason = ""
    for _ in range(MAX_ATTEMPTS):
        try:
            await complete(redis, api_id, status, body)
            return
        except (RedisError, OSError) as error:
            reason = str(error) or type(error).__name__
        await asyncio.sleep(RETRY_DELAY_S)
    log.error("asynchronous result delayed", api_id=api_id, attempts=MAX_ATTEMPTS, reason=reason)


async def complete(redis: Any, api_id: str, status: int, body: dict[str, Any]) -> None:
    """Send the result, unless it has been sent. Raises RedisError."""
    found = await redis.hget(KEY, api_id)
    if found is None:
        return
    pending = msgspec.json.decode(found, type=PendingResult)
    now = await now_ms(redis)
    try:
        entry = outbox.enqueue_item(_callback(pending, api_id, status, body), now)
    except CallbackTooLong:
        error = "the result is too long for a callback: repeat the call without callback_url"
        entry = outbox.enqueue_item(_callback(pending, api_id, 413, {"error": error}), now)
    await redis.eval(_SEND_RESULT, 2, prefix(outbox.QUEUE), KEY, api_id, *entry)


def _callback(pending: PendingResult, api_id: str, status: int, body: dict[str, Any]) -> PostCallback:
    # ASCII only: Plivo's SDK can't check the signature of a query that contains other characters.
    text = json.dumps({"api_id": api_id, **body})
    params = (("api_id", api_id), ("status_code", str(status)), ("response", text))
    return PostCallback(api_id, pending.auth_id, pending.url, pending.method, params)


class AbandonedCalls:
    """Pending results whose process has died: another process sends them."""

    def __init__(self, redis: Any, stored_reply: StoredReply, problems_kept: int) -> None:
        self._redis = redis
        self._stored_reply = stored_reply
        self._problems_kept = problems_kept

    async def watch(self) -> None:
        """Send the pending results of processes that have died, until canceled."""
        while True:
            try:
                await self._complete_all()
            except (RedisError, OSError) as error:
                log.debug("pending results not checked", reason=str(error))
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _complete_all(self) -> None:
        now = await now_ms(self._redis)
        async for api_id, text in self._redis.hscan_iter(KEY, count=SCAN_BATCH):
            name = api_id.decode(errors="replace")
            try:
                pending = msgspec.json.decode(text, type=PendingResult)
            except msgspec.MsgspecError as error:
                # Its receiver is unknown, and will stay so.
                log.error("pending result unreadable", api_id=name, reason=str(error), action="dropped")
                await self._redis.hdel(KEY, api_id)
                continue
            if pending.until_ms <= now:
                await self._complete(name, pending, is_last=pending.until_ms + RESULT_TTL_MS < now)

    async def _complete(self, api_id: str, pending: PendingResult, *, is_last: bool) -> None:
        """Send the result. `is_last`: if it fails, give up."""
        try:
            reply = await self._stored_reply(api_id) or INTERRUPTED
            log.warning("asynchronous call abandoned", api_id=api_id, status=reply.status)
            await complete(self._redis, api_id, reply.status, dict(reply.body))
        except (RedisError, OSError, msgspec.MsgspecError, KeyError, TypeError) as error:
            # Only this result fails; the loop continues with the others.
            reason = str(error) or type(error).__name__
            log.error("asynchronous result not queued", api_id=api_id, reason=reason, given_up=is_last)
            if is_last:
                await self._give_up(api_id, pending, reason)

    async def _give_up(self, api_id: str, pending: PendingResult, reason: str) -> None:
        text = f"the result of the asynchronous call {api_id} could not be queued and is not sent: {reason}"
        problem = Problem(await now_ms(self._redis), "", ProblemKind.RESULT_LOST, text)
        key, kept = problems_key(pending.auth_id), self._problems_kept
        pipe = self._redis.pipeline(transaction=True)
        pipe.hdel(KEY, api_id).lpush(key, encoded(problem)).ltrim(key, 0, kept - 1)
        await pipe.execute()


async def now_ms(redis: Any) -> int:
    """Return epoch milliseconds by Redis' clock, which all processes share."""
    seconds, micros = await redis.time()
    return int(seconds) * 1000 + int(micros) // 1000
