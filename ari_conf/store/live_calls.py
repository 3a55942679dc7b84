"""Live calls of an account, from the state that the servers write to Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from redis import Redis

from ari_conf.ownership.lease import ASTERISKS_KEY
from ari_conf.store.live_state import CALLS_AT_ONCE, LiveCallRecord, decode, is_of
from ari_conf.store.state_codec import is_conference
from ari_conf.store.state_store import state_key


async def find_call(redis: Any, auth_id: str, call_uuid: str) -> tuple[str, LiveCallRecord] | None:
    """Return (Asterisk, call) of a live call of the account, or None."""
    names = sorted(name.decode() for name in await redis.smembers(ASTERISKS_KEY))
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.hget(state_key(name), call_uuid)
    for name, text in zip(names, await pipe.execute(), strict=True):
        call = decode(text, LiveCallRecord) if text is not None and not is_conference(text) else None
        if call is not None and call.auth_id == auth_id and not call.is_over:
            return name, call
    return None


def scan_calls(redis: Redis, auth_id: str) -> Iterator[LiveCallRecord]:
    """Yield the account's live and queued calls, in no order. Blocks, and reads the calls of all accounts."""
    for name in cast("set[bytes]", redis.smembers(ASTERISKS_KEY)):
        for _, text in redis.hscan_iter(state_key(name.decode()), count=CALLS_AT_ONCE):
            if auth_id.encode() not in text or not is_of(text, auth_id) or is_conference(text):
                continue
            call = decode(text, LiveCallRecord)
            if call is not None and not call.is_over:
                yield call
