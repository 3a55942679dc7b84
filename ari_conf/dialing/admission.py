"""Admission of a call that is to be placed: the account's permissions, the route, and the limits in Redis.

An admitted call counts in all limits from then on. Its slot is freed when the server reports the call's end (`ledger`),
when `release` takes it back, or after `limits.PENDING_MS` if the server never got the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ari_conf.common import lua
from ari_conf.core.placing import MAX_TIME_LIMIT_S, TIME_LIMIT_S
from ari_conf.dialing import keys, numbers, routing, trunk_store, trunks
from ari_conf.dialing.attempt import DialAttempt
from ari_conf.dialing.numbers import Destination, InvalidDestination, Number
from ari_conf.dialing.permissions import Denial, Permissions, Reason
from ari_conf.dialing.trunks import Trunk

_ADMIT = lua.load("ari_conf.dialing.scripts.admit")
_RELEASE = lua.load("ari_conf.dialing.scripts.release")
INVALID = (Reason.DESTINATION_INVALID, Reason.CALLER_ID_INVALID)
"""Reasons that are mistakes in a parameter, and no refusals."""


class Refused(NamedTuple):
    """Call that may not be placed. Nothing has been counted."""

    reason: Reason
    text: str
    """Sentence for the account's owner."""

    @property
    def status(self) -> int:
        """HTTP status: 400 for a parameter that can't be read, otherwise 403."""
        return 400 if self.reason in INVALID else 403


class Admitted(NamedTuple):
    """Call that may be placed, and counts in the limits."""

    attempts: tuple[DialAttempt, ...]
    """Ways to the destination, in order: the next one if the one before is congested or unreachable."""
    to: str
    """Destination in its canonical form: +4930123456, 112 or sip:USER@HOST."""
    caller_id: str
    """Digits of the caller ID, with the country code and without a plus."""
    time_limit_s: int
    """Seconds after the answer at which the call must be hung up: the wanted ones, or what is left of the day."""
    delay_ms: int
    """Milliseconds to wait before dialing, because the trunk places only so many calls per second; mostly 0."""


class Plan(NamedTuple):
    """Destination, caller ID and trunks of a call, before the limits are asked."""

    destination: Destination
    caller: Number
    trunks: tuple[Trunk, ...]


class Admission:
    """Admission of calls by a web process. Its methods raise RedisError and TrunkError."""

    def __init__(self, redis: Any, trunks_setting: str = "", default_country: str = "") -> None:
        """Create it. `redis`: an asyncio client. `trunks_setting`: the setting `trunks`. Raises TrunkError."""
        self._redis = redis
        self.trunks_of_settings = trunks.from_settings(trunks_setting)
        self._country = default_country

    async def admit(
        self,
        auth_id: str,
        permissions: Permissions,
        call_uuid: str,
        from_: str,
        to: str,
        time_limit_s: int = TIME_LIMIT_S,
    ) -> Admitted | Refused:
        """Admit the call, or return why it is refused. `permissions`: those of the account's record."""
        planned = plan(await self._trunks(), permissions, from_, to, self._country)
        if isinstance(planned, Denial):
            return Refused(*planned)
        return await self._take_slot(auth_id, permissions, call_uuid, planned, min(time_limit_s, MAX_TIME_LIMIT_S))

    async def _take_slot(
        self, auth_id: str, permissions: Permissions, call_uuid: str, planned: Plan, time_limit_s: int
    ) -> Admitted | Refused:
        names = list(keys.account_keys(auth_id))
        limits: list[str | int] = [
            *(call_uuid, permissions.calls, permissions.calls_per_minute, permissions.minutes_per_day, time_limit_s)
        ]
        for trunk in planned.trunks:
            names += (keys.trunk_key(trunk.name), keys.trunk_next_key(trunk.name))
            limits += (trunk.calls, trunk.per_second)
        limit, *granted = await self._redis.eval(_ADMIT, len(names), *names, *limits)
        if limit:
            return _limit_refusal(limit.decode(), permissions, planned)
        granted_s, delay_ms, *positions = map(int, granted)
        usable = [planned.trunks[position - 1] for position in positions]
        attempts = tuple(routing.attempt(trunk, planned.destination) for trunk in usable)
        return Admitted(attempts, str(planned.destination), planned.caller.digits, granted_s, delay_ms)

    async def release(self, auth_id: str, call_uuid: str, attempts: Sequence[DialAttempt] = ()) -> None:
        """Take back an admission: the server has refused the call, or did not get it. It counts in no limit."""
        names = [each.trunk for each in attempts]
        first = names[0] if names else ""
        trunk = next((each for each in await self._trunks() if each.name == first), None) if names else None
        turn_ms = -(-1000 // trunk.per_second) if trunk is not None and trunk.per_second else 0
        account = keys.calls_key(auth_id), keys.minute_key(auth_id)
        touched = [*account, keys.trunk_next_key(first), *map(keys.trunk_key, names)]
        await self._redis.eval(_RELEASE, len(touched), *touched, call_uuid, turn_ms)

    async def _trunks(self) -> list[Trunk]:
        stored = trunk_store.decode_all(await self._redis.hgetall(keys.TRUNKS_KEY))
        return trunk_store.merged(self.trunks_of_settings, stored)


def plan(
    candidates: Sequence[Trunk], permissions: Permissions, from_: str, to: str, default_country: str = ""
) -> Plan | Denial:
    """Return how a call would be placed, or why it may not be, apart from the limits. Pure.

    The permissions are asked before the routes: an account learns nothing of trunks that are not for it."""
    try:
        destination = numbers.parse_destination(to, default_country)
    except InvalidDestination as expected:
        return Denial(Reason.DESTINATION_INVALID, f"to: {to[:80]!r} is not allowed; expected {expected}")
    try:
        caller = numbers.parse_number(from_, default_country)
    except InvalidDestination as expected:
        return Denial(Reason.CALLER_ID_INVALID, f"from: {from_[:80]!r} is not allowed; expected {expected}")
    if not candidates:
        return Denial(Reason.NO_TRUNK, "no trunk is configured, so that nothing can be dialed: ask the administrator")
    if (denial := permissions.check(destination, caller)) is not None:
        return denial
    found = routing.route(candidates, destination, caller)
    if not found:
        return Denial(
            Reason.NO_TRUNK, f"no trunk is for {destination} with the caller ID {caller}: ask the administrator"
        )
    return Plan(destination, caller, tuple(found))


def _limit_refusal(limit: str, permissions: Permissions, planned: Plan) -> Refused:
    match limit:
        case "calls":
            text = f"the account has {permissions.calls} placed calls, and may have no more at the same time"
            return Refused(Reason.TOO_MANY_CALLS, text)
        case "minute":
            text = f"the account has placed {permissions.calls_per_minute} calls within a minute, and may place no more"
            return Refused(Reason.TOO_MANY_PER_MINUTE, text)
        case "day":
            text = f"the account's {permissions.minutes_per_day} minutes of this day (UTC) are used up"
            return Refused(Reason.NO_MINUTES_LEFT, text)
        case _:
            text = f"every trunk for {planned.destination} has as many calls as it may have: try again later"
            return Refused(Reason.TRUNKS_FULL, text)
