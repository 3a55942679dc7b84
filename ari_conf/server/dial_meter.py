"""Dial meter: ends the placed calls of an account whose minutes of the day are used up.

Each call has a time limit, which was cut to what was left when it was admitted; but calls that run in parallel use
up the minutes together. The meter asks Redis what all of an account's calls have used, those of other servers included,
and has the engine hang up those of this one. It looks again when the minutes are used up if nothing changes, and at
least every INTERVAL_S: so the calls of an account can exceed its minutes by INTERVAL_S each.

While Redis is unreachable nothing is measured: the calls continue, up to their own time limits.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import structlog
from redis import RedisError

from ari_conf.common.log_throttle import LogThrottle
from ari_conf.core import events as ev
from ari_conf.core.engine import Engine
from ari_conf.dialing import usage
from ari_conf.server.dial_admission import read_permissions

log = structlog.get_logger()

INTERVAL_S = 2.0
MIN_INTERVAL_S = 0.1


class DialMeter:
    def __init__(self, redis: Any, engine: Engine, deliver: Callable[[ev.Event], None]) -> None:
        """Create the meter. `redis`: an asyncio client."""
        self._redis = redis
        self._engine = engine
        self._deliver = deliver

    async def run(self) -> None:
        """Measure indefinitely."""
        outage, wait_s = LogThrottle(), INTERVAL_S
        while True:
            await asyncio.sleep(wait_s)
            try:
                wait_s = await self.measure()
                outage.reset()
            except (RedisError, OSError) as error:
                wait_s = INTERVAL_S
                if outage.should_log():
                    log.warning("dialing usage not read", reason=str(error) or type(error).__name__)

    async def measure(self) -> float:
        """End the calls whose minutes are used up. Return the seconds until the next look. Raises RedisError."""
        wait_s = INTERVAL_S
        for auth_id, call_uuids in self._placed_calls().items():
            permissions = await read_permissions(self._redis, auth_id)
            found = await usage.read(self._redis, auth_id, permissions.minutes_per_day)
            if found.left_ms:
                wait_s = min(wait_s, max(MIN_INTERVAL_S, found.lasts_ms / 1000))
                continue
            log.warning("dialing minutes used up", auth_id=auth_id, calls=len(call_uuids))
            for call_uuid in call_uuids:
                self._deliver(ev.MinutesUsedUp(call_uuid))
        return wait_s

    def _placed_calls(self) -> dict[str, list[str]]:
        """Return the live calls that this server has placed, by account."""
        found = defaultdict[str, list[str]](list)
        for call in self._engine.calls.values():
            if call.outgoing is not None and not call.is_ending:
                found[call.auth_id].append(call.call_uuid)
        return found
