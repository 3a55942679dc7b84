"""Log throttle: a failure that repeats with every retry is logged at most once a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

LOG_INTERVAL_S = 60.0


class LogThrottle:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at = float("-inf")

    def should_log(self) -> bool:
        """Return True if a failure is to be logged now: none was logged for a minute, or since the last success."""
        now = self._clock()
        if now - self._logged_at < LOG_INTERVAL_S:
            return False
        self._logged_at = now
        return True

    def reset(self) -> None:
        """Record a success: the next failure is logged immediately."""
        self._logged_at = float("-inf")
