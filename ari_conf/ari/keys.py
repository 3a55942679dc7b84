"""Keys that Asterisk tells twice. Pure.

Asterisk tells a key when its end arrives. It passes no key on sooner than GAP_MS after the last one, nor while it is
still making the last one's tone, which it does for each key whose beginning came too soon. What arrives too soon is put
aside, taken up again as soon as it may be, and told once more (main/channel.c, `__ast_read`; seen on 22.10.1). Fast
typing, or a line with some jitter, makes `123344` of `1234`.

Meanwhile nothing else of that channel is read: so the second telling of a key comes next, with the same duration. When
it comes can be reckoned, within bounds: it isn't told whether a key's beginning was taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

GAP_MS = 45
"""That Asterisk leaves between two keys."""
SHORTEST_MS = 80
"""Of the tones that Asterisk makes, if asterisk.conf gives no other `mindtmfduration`; a longer key's is as long."""
FRAME_MS = 25
"""By which the end of a tone may be noticed later: with the next packet of sound."""
LATE_MS = 25
"""By which a second telling may come later than reckoned: Asterisk's machine may be busy."""
SURELY_LATE_MS = 1000
"""The same for a key that was put aside without doubt: it is awaited longer."""
QUICKEST_MS = 60
"""Shorter keys than this are never pressed in less time one after the other."""
TOGETHER_MS = 30
"""Told twice within this time, it was one key, of a phone that tells its keys in two ways (RFC 4733 and INFO)."""
LONG_MS = 150
"""Of keys as long as this, two can't end within half of that, unless the network stood still for longer. What INFO says
is mostly 160 or 250, whatever was pressed; many phones make it so long by RFC 4733, too."""
MOST_CHANNELS = 20_000
"""Of which it is remembered what was pressed last; those that were quiet for longest are forgotten first."""
EVER = float("-inf"), float("-inf")


@dataclass(slots=True)
class _Channel:
    free: tuple[float, float] = EVER
    """Asterisk passes keys on from some time between these two on."""
    digit: str = ""
    duration: int = 0
    at: float = 0.0
    again_until: float | None = None
    """Until when the last key may be told again; None: it may not."""
    put_aside: bool = False
    """It will be, without doubt."""

    def told(self, digit: str, duration: int, at: float) -> bool:
        """Whether it is a key that was told already."""
        since = at - self.at
        if since < 0:
            # A clock was set back.
            self.free, self.digit, self.again_until = EVER, "", None
        same = digit == self.digit
        again = same and duration == self.duration and self._is_awaited(duration, at)
        shorter = min(duration, self.duration)
        long = shorter >= LONG_MS
        # Short ones of the same duration may be two, for which the network made us wait.
        twice = same and since < (shorter / 2 if long else TOGETHER_MS) and (long or duration != self.duration)
        early, late = self.free
        tone_ms = max(duration, SHORTEST_MS)
        # A tone is made of one that was put aside; of others perhaps.
        self.free = at + GAP_MS + (duration if again else 0), at + GAP_MS + tone_ms + FRAME_MS
        # What was put aside and is told again has let the next key wait: that one may follow at once.
        self.digit, self.duration, self.at = "" if again else digit, duration, at
        self.put_aside = not again and at < early
        self.again_until = None
        if not again and at < late:
            self.again_until = late + (SURELY_LATE_MS if self.put_aside else LATE_MS)
        return again or twice

    def _is_awaited(self, duration: int, at: float) -> bool:
        if self.again_until is None or at > self.again_until:
            return False
        return self.put_aside or at - self.at < max(duration, QUICKEST_MS)


class Keys:
    """Of all channels."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}

    def told_again(self, message: Mapping[str, Any]) -> bool:
        """Whether the event tells of a key that was told before. To be asked of each event, once, in their order."""
        match message:
            case {"type": "ChannelDtmfReceived", "channel": {"id": str(channel_id)}, "digit": str(digit)}:
                at, duration = _epoch_ms(message.get("timestamp")), message.get("duration_ms")
                if at is None or not isinstance(duration, int):
                    return False
                return self._channel(channel_id).told(digit, duration, at)
            case {"type": "StasisEnd" | "ChannelDestroyed", "channel": {"id": str(channel_id)}}:
                self._channels.pop(channel_id, None)
        return False

    def _channel(self, channel_id: str) -> _Channel:
        # To the end of the dictionary: it was used last.
        self._channels[channel_id] = channel = self._channels.pop(channel_id, None) or _Channel()
        if len(self._channels) > MOST_CHANNELS:
            del self._channels[next(iter(self._channels))]
        return channel


def _epoch_ms(timestamp: object) -> float | None:
    """By Asterisk's clock: how long an event took to come to us says nothing."""
    try:
        return datetime.fromisoformat(timestamp).timestamp() * 1000 if isinstance(timestamp, str) else None
    except (ValueError, OverflowError):
        return None
