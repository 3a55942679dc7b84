"""How long to wait before Asterisk is asked once more for what it has not done."""

from __future__ import annotations

AGAIN_MS, LATEST_AGAIN_MS = 5000, 60_000


def again_ms(times: int) -> int:
    """After so many tries: 5, 10, 20, 40 seconds, then a minute."""
    return min(AGAIN_MS << min(times, 8), LATEST_AGAIN_MS)
