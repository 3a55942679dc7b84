"""Backoff: delays between repetitions of a request that Asterisk has not carried out."""

from __future__ import annotations

AGAIN_MS, LATEST_AGAIN_MS = 5000, 60_000


def again_ms(times: int) -> int:
    """Return the milliseconds to the next repetition, after `times` of them: 5, 10, 20, 40 s, then one minute."""
    return min(AGAIN_MS << min(times, 8), LATEST_AGAIN_MS)
