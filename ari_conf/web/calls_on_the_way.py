"""Calls on their way into conferences: those that the API has placed, until they are members or have ended.

The dialing limits have a list of the account's placed calls. Of these, each is read until it is clear that it is not on
its way into a conference, or is no longer: it does not come back.
"""

from __future__ import annotations

from typing import Any

from ari_conf.dialing.keys import calls_key
from ari_conf.ownership.lease import ASTERISKS_KEY
from ari_conf.store.live_state import PlacedCallRecord, read_placed_calls

MAX_LISTED = 10_000
"""Calls of an account of which the earliest to expire are looked at. More at once is beyond one machine."""
MAX_READ = 200
"""Calls that are read at a time, at most; the others follow the next time."""

Calls = dict[str, dict[str, Any]]
"""Call UUID -> the call as the event stream sends it."""


class CallsOnTheWay:
    """Reader of the calls on their way into the conferences of one account."""

    def __init__(self, redis: Any, auth_id: str) -> None:
        self._redis = redis
        self._auth_id = auth_id
        self._settled: set[str] = set()
        """Calls that are not on their way into a conference. It holds no more than the list does."""

    async def read(self) -> Calls:
        """Return the calls, in no order. Raises RedisError."""
        listed = await self._redis.zrange(calls_key(self._auth_id), 0, MAX_LISTED - 1)
        call_uuids = [one.decode() for one in listed]
        self._settled.intersection_update(call_uuids)
        wanted = [uuid for uuid in call_uuids if uuid not in self._settled][:MAX_READ]
        return await self._read(wanted) if wanted else {}

    async def _read(self, call_uuids: list[str]) -> Calls:
        shown: Calls = {}
        for asterisk in sorted(name.decode() for name in await self._redis.smembers(ASTERISKS_KEY)):
            # A call that no server has yet is about to be placed, and is read again.
            for call_uuid, call in (await read_placed_calls(self._redis, asterisk, call_uuids)).items():
                self._sort(call_uuid, call, shown)
        return shown

    def _sort(self, call_uuid: str, call: PlacedCallRecord | None, shown: Calls) -> None:
        name = call.conference_name if call is not None and call.auth_id == self._auth_id else None
        if call is None or name is None:
            self._settled.add(call_uuid)
            return
        shown[call_uuid] = {
            "conference_name": name,
            "from": call.from_number.removeprefix("+"),
            "to": call.to_number.removeprefix("+"),
            "state": call.progress,
        }
