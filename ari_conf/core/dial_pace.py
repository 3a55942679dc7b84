"""Dial pace: how many calls of an account are dialed per second. Those beyond it are queued, each with its time."""

from __future__ import annotations

from dataclasses import dataclass, field

BURST_MS = 1000
"""Milliseconds of the rate that may be dialed at once."""
MAX_IDLE = 1000
"""Accounts whose pace is remembered though they may dial at once."""


@dataclass(slots=True)
class DialPace:
    per_second: float = 0.0
    """Calls of one account per second; 0: no limit."""
    _next_at: dict[str, float] = field(default_factory=dict)
    """account -> epoch ms at which its next call would be due if all were dialed at an even pace"""

    def plan(self, auth_id: str, number: int, now: int) -> list[int]:
        """Return the epoch ms at which each of so many calls of the account may be dialed; `take` then counts them."""
        if self.per_second <= 0:
            return [now] * number
        interval_ms = 1000 / self.per_second
        first, burst_ms = max(self._next_at.get(auth_id, 0.0), now), max(0.0, BURST_MS - interval_ms)
        return [max(now, round(first + interval_ms * n - burst_ms)) for n in range(number)]

    def take(self, auth_id: str, number: int, now: int) -> None:
        """Count so many calls of the account."""
        if self.per_second > 0:
            if len(self._next_at) > MAX_IDLE:
                self._next_at = {account: at for account, at in self._next_at.items() if at > now}
            self._next_at[auth_id] = max(self._next_at.get(auth_id, 0.0), now) + number * 1000 / self.per_second

    def restore(self, auth_id: str, dial_at: int) -> None:
        """Count a call that a previous process has queued."""
        if self.per_second > 0:
            self._next_at[auth_id] = max(
                self._next_at.get(auth_id, 0.0), dial_at + max(BURST_MS, 1000 / self.per_second)
            )
