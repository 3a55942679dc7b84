"""Backoff: delays between repetitions of a request that Asterisk has not carried out."""

from __future__ import annotations

FIRST_RETRY_DELAY_MS, MAX_RETRY_DELAY_MS = 5000, 60_000


def retry_delay_ms(times: int) -> int:
    """Return the milliseconds to the next repetition, after `times` of them: 5, 10, 20, 40 s, then one minute."""
    return min(FIRST_RETRY_DELAY_MS << min(times, 8), MAX_RETRY_DELAY_MS)
