"""Call queries: the servers that can place a call, and the live calls, from the state that their owners write."""

from __future__ import annotations

from typing import Any

from redis import Redis

from ari_conf.core.request_params import format_second
from ari_conf.ownership.lease import ASTERISKS_KEY, LEASE_S, lease_key, owner_key
from ari_conf.store.live_calls import find_call, scan_calls
from ari_conf.store.live_state import LiveCallRecord
from ari_conf.web.call_models import CallsQuery
from ari_conf.web.errors import ApiError

MAX_UUID_CHARS = 64
not_found = ApiError(404, "call not found: it has ended, or the account has no such call")
NOT_VERIFIED = "Not Applicable"
"""stir_verification: only carriers in some countries sign calls, and Asterisk does not report it here."""


async def list_servers(redis: Any) -> list[str]:
    """Return the Asterisks whose owner is alive, the one that renewed its lease last first."""
    names = [name.decode() for name in await redis.smembers(ASTERISKS_KEY)]
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.get(owner_key(name)).hget(lease_key(name), "renewed_ms")
    *found, (seconds, microseconds) = await pipe.time().execute()
    now, alive = seconds * 1000 + microseconds // 1000, list[tuple[int, str]]()
    for name, token, renewed_ms in zip(names, found[::2], found[1::2], strict=True):
        if token and renewed_ms and now - int(renewed_ms) < 2 * LEASE_S * 1000:
            alive.append((now - int(renewed_ms), name))
    return [name for _, name in sorted(alive)]


async def get_owner(redis: Any, auth_id: str, call_uuid: str) -> str:
    """Return the name of the Asterisk that has the account's live call. Raises ApiError 404 if there is none."""
    found = await find_call(redis, auth_id, call_uuid) if 0 < len(call_uuid) <= MAX_UUID_CHARS else None
    if found is None:
        raise not_found
    return found[0]


def list_calls(redis: Redis, auth_id: str, query: CallsQuery) -> list[str]:
    """Return the UUIDs of the account's live or queued calls that the query asks for, the oldest first. Blocks."""
    calls = [(call.started_ms, call.call_uuid) for call in scan_calls(redis, auth_id) if _matches(call, query)]
    return [call_uuid for _, call_uuid in sorted(calls)][query.offset : query.offset + query.limit]


def _matches(call: LiveCallRecord, query: CallsQuery) -> bool:
    return (
        call.is_queued == (query.status == "queued")
        and query.call_direction in (None, call.direction)
        and query.from_number.lstrip("+") in call.from_number
        and query.to_number.lstrip("+") in call.to_number
    )


def to_api(call: LiveCallRecord) -> dict[str, Any]:
    """Return the call in the format of Plivo's API."""
    seconds, ms = divmod(call.started_ms, 1000)
    return {
        "call_uuid": call.call_uuid,
        "call_status": call.status,
        "request_uuid": call.request_uuid,
        "direction": call.direction,
        "from": call.from_number.removeprefix("+"),
        "to": call.to_number.removeprefix("+"),
        "caller_name": call.caller_name,
        "session_start": f"{format_second(seconds)}.{ms:03}000",
        "stir_verification": NOT_VERIFIED,
        "stir_attestation": "",
    }
