"""Idempotency keys: the first request and response of each Idempotency-Key, in Redis, bounded in number and size.

| key | value |
|---|---|
| ari_conf:idempotency:ACCOUNT | hash, a key's hash -> JSON: the request, and its response; `bytes`: their size |
| ari_conf:idempotency:ACCOUNT:order | sorted set of the same hashes by start of the request, by Redis' clock |

Both expire when the account has sent no key for a day.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import structlog

from ari_conf.common.redis_clock import CLOCK
from ari_conf.common.redis_keys import PREFIX
from ari_conf.web.api_result import ApiResult

log = structlog.get_logger()

KEPT_MS = 24 * 3600 * 1000
MOST_KEYS = 10_000
"""Maximum number of keys of an account. The oldest are evicted when there are more."""
MOST_BYTES = 4 * 1024 * 1024
"""Maximum size of their JSON for an account, likewise. An ordinary key has about 250 bytes."""

_FORGET = """
local function forget(field)
  redis.call('HINCRBY', KEYS[1], 'bytes', -redis.call('HSTRLEN', KEYS[1], field))
  redis.call('HDEL', KEYS[1], field)
  redis.call('ZREM', KEYS[2], field)
end
"""

# Redis runs scripts sequentially, so exactly one of several concurrent requests with the same key is the first.
_BEGIN = (
    CLOCK
    + _FORGET
    + """
local field, mine, most, most_bytes, kept_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now = clock()
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - kept_ms, 'LIMIT', 0, 100)) do forget(old) end
local found, began = redis.call('HGET', KEYS[1], field), redis.call('ZSCORE', KEYS[2], field)
if found and began and now - began < kept_ms then return {found, now - began} end
if found then forget(field) end
redis.call('HSET', KEYS[1], field, mine)
redis.call('HINCRBY', KEYS[1], 'bytes', #mine)
redis.call('ZADD', KEYS[2], now, field)
while redis.call('ZCARD', KEYS[2]) > most or tonumber(redis.call('HGET', KEYS[1], 'bytes')) > most_bytes do
  forget(redis.call('ZRANGE', KEYS[2], 0, 0)[1])
end
redis.call('PEXPIRE', KEYS[1], kept_ms)
redis.call('PEXPIRE', KEYS[2], kept_ms)
return false
"""
)

_SETTLE = (
    _FORGET
    + """
local before = redis.call('HSTRLEN', KEYS[1], ARGV[1])
if before == 0 then return end
if ARGV[2] == '' then return forget(ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'bytes', #ARGV[2] - before)
"""
)


class IdempotencyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    fingerprint: str
    api_id: str
    result: ApiResult | None = None
    """None until the first request has its response."""
    undone: bool = False
    """Set if the first request failed with 503: a repetition may do the work."""


class IdempotencyEntry:
    """Entry of one Idempotency-Key in Redis. Its methods raise RedisError."""

    def __init__(self, redis: Any, auth_id: str, path: str, key: str) -> None:
        key_of_account = f"{PREFIX}idempotency:{auth_id}"
        self._redis = redis
        self._keys = key_of_account, f"{key_of_account}:order"
        # The same key on another path is a different key.
        self._field = fingerprint(f"{path}\0{key}")

    async def begin(self, mine: IdempotencyRecord) -> tuple[IdempotencyRecord, int] | None:
        """Register this request as the first and return None, or return the first one's entry and its age in ms."""
        arguments = (self._field, msgspec.json.encode(mine), MOST_KEYS, MOST_BYTES, KEPT_MS)
        found = await self._redis.eval(_BEGIN, 2, *self._keys, *arguments)
        if not found:
            return None
        try:
            return msgspec.json.decode(found[0], type=IdempotencyRecord), int(found[1])
        except msgspec.MsgspecError as error:
            log.warning("idempotency record unreadable", reason=str(error), action="treated as first request")
            await self.forget()
            return await self.begin(mine)

    async def settle(self, record: IdempotencyRecord) -> None:
        await self._redis.eval(_SETTLE, 2, *self._keys, self._field, msgspec.json.encode(record))

    async def forget(self) -> None:
        """Delete the entry, so that a repetition counts as a first request."""
        await self._redis.eval(_SETTLE, 2, *self._keys, self._field, "")


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
