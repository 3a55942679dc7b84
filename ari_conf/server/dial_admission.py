"""Dial admission: asks the dialing policy whether the calls of a document's Dial may be placed.

It is the policy of the API's calls, with the same limits: a document dials nothing that a request could not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from redis import RedisError

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.placing import CallToPlace
from ari_conf.dialing.admission import Admission, Admitted, Refused
from ari_conf.dialing.permissions import NOTHING, Permissions, Reason
from ari_conf.errors import AccountUnreadable, TrunkError
from ari_conf.store import accounts

log = structlog.get_logger()

DEADLINE_S = 5.0
"""Seconds after which a question that Redis has not answered counts as refused."""
CALLER_ID_REASONS = (Reason.CALLER_ID_INVALID, Reason.CALLER_ID_NOT_ALLOWED)
"""Reasons for which the next caller ID is tried."""
UNAVAILABLE = "the dialing limits can't be read, because Redis does not answer: nothing was dialed"


class DialAdmission:
    def __init__(self, redis: Any, admission: Admission, count_refused: Callable[[str], None]) -> None:
        """Create it. `redis`: an asyncio client. `count_refused` gets the reason of each call that is refused."""
        self._redis = redis
        self._admission = admission
        self._count_refused = count_refused

    async def admit(self, effect: do.AdmitDial) -> ev.DialAdmitted:
        """Admit each call, or find out why it is refused. Never raises because of Redis: then all are refused."""
        calls, refusals = list[CallToPlace](), list[str]()
        try:
            async with asyncio.timeout(DEADLINE_S):
                permissions = await read_permissions(self._redis, effect.auth_id)
                for call_uuid, to in effect.legs:
                    admitted = await self._admit(effect, permissions, call_uuid, to)
                    if isinstance(admitted, Refused):
                        self._count_refused(admitted.reason.value)
                        log.info("dialing refused", auth_id=effect.auth_id, reason=admitted.reason.value)
                        refusals.append(f"{admitted.reason}: {admitted.text}")
                    else:
                        calls.append(_to_place(effect, call_uuid, admitted))
        except (RedisError, OSError, TimeoutError, TrunkError) as error:
            # What was admitted counts until it expires, so that nothing is dialed which is not counted.
            log.warning("dialing not admitted", auth_id=effect.auth_id, reason=str(error) or type(error).__name__)
            return ev.DialAdmitted(effect.dial_id, (), (UNAVAILABLE,))
        return ev.DialAdmitted(effect.dial_id, tuple(calls), tuple(refusals))

    async def _admit(
        self, effect: do.AdmitDial, permissions: Permissions, call_uuid: str, to: str
    ) -> Admitted | Refused:
        """Try the caller IDs in order. The first refusal is the one that counts: its caller ID is the one wanted."""
        first: Refused | None = None
        for caller_id in effect.caller_ids:
            admitted = await self._admission.admit(
                effect.auth_id, permissions, call_uuid, caller_id, to, effect.time_limit_s
            )
            if isinstance(admitted, Admitted):
                return admitted
            first = first or admitted
            if admitted.reason not in CALLER_ID_REASONS:
                return admitted
        assert first is not None
        return first


async def read_permissions(redis: Any, auth_id: str) -> Permissions:
    """Return what the account may dial now: an administrator may have changed it. One that was removed, or whose record
    can't be read, may dial nothing. `redis`: an asyncio client. Raises RedisError."""
    record = await redis.hget(accounts.KEY, auth_id)
    try:
        return accounts.read(auth_id, record).permissions() if record else NOTHING
    except AccountUnreadable:
        return NOTHING


def _to_place(effect: do.AdmitDial, call_uuid: str, admitted: Admitted) -> CallToPlace:
    return CallToPlace(
        call_uuid,
        admitted.to,
        admitted.caller_id,
        effect.caller_name or admitted.caller_id,
        admitted.attempts,
        admitted.time_limit_s,
        admitted.delay_ms,
    )
