"""What is tried again and again is not told each time that it fails."""

from __future__ import annotations

import time
from collections.abc import Callable

AGAIN_S = 60.0


class Seldom:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = float("-inf")

    def due(self) -> bool:
        """Now it should be told: it was not, for a minute or since it last went well."""
        now = self._clock()
        if now - self._told_at < AGAIN_S:
            return False
        self._told_at = now
        return True

    def well(self) -> None:
        """The next failure is told at once."""
        self._told_at = float("-inf")
