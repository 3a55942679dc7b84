"""Log throttle: a failure that repeats with every retry is logged at most once a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

AGAIN_S = 60.0


class LogThrottle:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = float("-inf")

    def due(self) -> bool:
        """Return True if a failure is to be logged now: none was logged for a minute, or since the last success."""
        now = self._clock()
        if now - self._told_at < AGAIN_S:
            return False
        self._told_at = now
        return True

    def well(self) -> None:
        """Record a success: the next failure is logged immediately."""
        self._told_at = float("-inf")
