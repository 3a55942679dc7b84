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

from ari_conf.common import lua
from ari_conf.common.redis_keys import PREFIX
from ari_conf.web.api_result import ApiResult

log = structlog.get_logger()

RECORD_TTL_MS = 24 * 3600 * 1000
MAX_KEYS = 10_000
"""Maximum number of keys of an account. The oldest are evicted when there are more."""
MAX_BYTES = 4 * 1024 * 1024
"""Maximum size of their JSON for an account, likewise. An ordinary key has about 250 bytes."""

_BEGIN = lua.load("ari_conf.web.scripts.begin_idempotent")
_FINISH = lua.load("ari_conf.web.scripts.finish_idempotent")


class IdempotencyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    fingerprint: str
    api_id: str
    result: ApiResult | None = None
    """None until the first request has its response."""
    may_repeat: bool = False
    """Set if the first request failed with 503: a repetition may do the work."""


class IdempotencyEntry:
    """Entry of one Idempotency-Key in Redis. Its methods raise RedisError."""

    def __init__(self, redis: Any, auth_id: str, path: str, key: str) -> None:
        key_of_account = f"{PREFIX}idempotency:{auth_id}"
        self._redis = redis
        self._keys = key_of_account, f"{key_of_account}:order"
        # The same key on another path is a different key.
        self._field = fingerprint(f"{path}\0{key}")

    async def begin(self, own_record: IdempotencyRecord) -> tuple[IdempotencyRecord, int] | None:
        """Register this request as the first and return None, or return the first one's entry and its age in ms."""
        arguments = (self._field, msgspec.json.encode(own_record), MAX_KEYS, MAX_BYTES, RECORD_TTL_MS)
        found = await self._redis.eval(_BEGIN, 2, *self._keys, *arguments)
        if not found:
            return None
        try:
            return msgspec.json.decode(found[0], type=IdempotencyRecord), int(found[1])
        except msgspec.MsgspecError as error:
            log.warning("idempotency record unreadable", reason=str(error), action="treated as first request")
            await self.forget()
            return await self.begin(own_record)

    async def settle(self, record: IdempotencyRecord) -> None:
        await self._redis.eval(_FINISH, 2, *self._keys, self._field, msgspec.json.encode(record))

    async def forget(self) -> None:
        """Delete the entry, so that a repetition counts as a first request."""
        await self._redis.eval(_FINISH, 2, *self._keys, self._field, "")


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
