"""Usage: what is left of an account's minutes of the day. Its running calls count together, as they run."""

from __future__ import annotations

from typing import Any, NamedTuple

from ari_conf.common import lua
from ari_conf.dialing import keys

_READ_USAGE = lua.load("ari_conf.dialing.scripts.read_usage")


class Usage(NamedTuple):
    left_ms: int
    """Milliseconds that are left of the day's minutes."""
    running: int
    """Placed calls that are answered and live, on all Asterisks."""

    @property
    def lasts_ms(self) -> float:
        """Return after how many milliseconds nothing is left, if no further call is answered."""
        return self.left_ms / max(1, self.running)


async def read(redis: Any, auth_id: str, minutes_per_day: int) -> Usage:
    """Return the usage of an account. Raises RedisError."""
    names = keys.calls_key(auth_id), keys.answered_key(auth_id), keys.ended_key(auth_id), keys.day_prefix(auth_id)
    left_ms, running = await redis.eval(_READ_USAGE, len(names), *names, minutes_per_day)
    return Usage(int(left_ms), int(running))
