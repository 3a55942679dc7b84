"""The server's clock: epoch milliseconds that advance evenly, whatever is done to the wall clock of any machine.

| key | is |
|---|---|
| ari_conf:clock:ASTERISK | hash: this clock, CLOCK_BOOTTIME, Redis': `server_ms`, `boottime_ms`, `redis_ms`; `boot` |

All deadlines of calls and conferences are in this clock's milliseconds, also where they are persisted. A process that
takes over therefore continues the clock of the previous one. If both ran on the same boot of the same machine, it uses
CLOCK_BOOTTIME, which is exact. Otherwise it adds the time that has passed on Redis' clock since the record was written,
which happens every RECORD_INTERVAL_S. If no calls or conferences exist, or no valid record, the clock starts with
Redis' time.

After that it never jumps: every RECORD_INTERVAL_S it approaches Redis' clock by SLEW_MS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import redis.asyncio
import structlog
from redis import RedisError

from ari_conf.common import lua
from ari_conf.common.redis_keys import PREFIX

log = structlog.get_logger()

RECORD_INTERVAL_S = 1.0
SLEW_MS = 1
"""Milliseconds per RECORD_INTERVAL_S: 0.1 %, so that no timeout becomes noticeably longer or shorter."""
TOLERANCE_MS = 20
"""Milliseconds of difference up to which the two clocks count as equal: an answer from Redis takes some time."""
RETRY_DELAY_S = 0.5
MAX_DIGITS = 15
"""Maximum number of digits of a valid time: no calendar goes further."""
PROC = Path("/proc")

_READ = lua.load("ari_conf.server.scripts.read_clock")
_RECORD = lua.load("ari_conf.server.scripts.record_clock")


def clock_key(asterisk_name: str) -> str:
    return f"{PREFIX}clock:{asterisk_name}"


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def boottime_ms() -> int:
    """Return CLOCK_BOOTTIME in ms: it advances while the machine sleeps, and setting the time does not change it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def place() -> str:
    """Return boot and time namespace, within which CLOCK_BOOTTIME is the same for all processes; "" if unknown."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(PROC / 'self/ns/time').readlink()}"
    except OSError:
        return ""


class Clock:
    def __init__(
        self, steady: Callable[[], int] = boottime_ms, wall: Callable[[], int] = wall_ms, where: str | None = None
    ) -> None:
        """Start the clock at the current wall-clock time, until `start` sets it."""
        self._steady = steady
        self._place = place() if where is None else where
        self._offset_ms = wall() - steady()
        """Milliseconds by which this clock is ahead of the steady clock."""

    def now_ms(self) -> int:
        return self._steady() + self._offset_ms

    async def start(self, client: redis.asyncio.Redis, asterisk_name: str, *, has_calls: bool) -> None:
        """Set the clock, waiting until Redis answers.

        `has_calls`: calls with deadlines of the previous process exist.
        """
        while True:
            try:
                answer = client.eval(_READ, 1, clock_key(asterisk_name))
                now, *record = cast("list[Any]", await cast(Any, answer))
                break
            except (RedisError, OSError) as error:
                reason = str(error) or type(error).__name__
                log.error("redis unavailable at startup", reason=reason, waiting_for="clock")
                await asyncio.sleep(RETRY_DELAY_S)
        ms, steady, where, recorded_at = cast("list[bytes]", record)
        if not (has_calls and all(part.isdigit() and len(part) <= MAX_DIGITS for part in (ms, steady, recorded_at))):
            self._offset_ms = int(now) - self._steady()
        elif where and where == self._place.encode():
            self._offset_ms = int(ms) - int(steady)
        else:
            self._offset_ms = int(ms) + max(0, int(now) - int(recorded_at)) - self._steady()

    async def run(self, client: redis.asyncio.Redis, asterisk_name: str) -> None:
        """Record the clock for the next process, and let it approach Redis' clock. Never returns."""
        while True:
            try:
                answer = client.eval(_RECORD, 1, clock_key(asterisk_name), self.now_ms(), self._steady(), self._place)
                self.approach(int(await cast(Any, answer)))
            except (RedisError, OSError) as error:
                log.debug("clock not recorded", reason=str(error) or type(error).__name__)
            await asyncio.sleep(RECORD_INTERVAL_S)

    def approach(self, other_ms: int) -> None:
        difference = other_ms - self.now_ms()
        if abs(difference) > TOLERANCE_MS:
            self._offset_ms += SLEW_MS if difference > 0 else -SLEW_MS
