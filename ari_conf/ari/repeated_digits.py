"""Filter for keys (DTMF digits) that Asterisk reports twice. Pure.

Asterisk reports a key when its end arrives. It passes no key on earlier than GAP_MS after the last one, nor while it
still generates the last one's tone, which it does for each key whose beginning came too early. A key that arrives too
early is put aside, resumed as soon as possible, and reported again (main/channel.c, `__ast_read`; seen on 22.10.1).
Fast typing, or a line with some jitter, turns `1234` into `123344`.

Until then Asterisk reads nothing else of that channel: so the second report of a key comes next, with the same
duration. Its time can be computed only within bounds, because Asterisk doesn't report if it accepted the beginning of
a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

GAP_MS = 45
"""Gap that Asterisk leaves between two keys."""
MIN_TONE_MS = 80
"""Shortest tone that Asterisk generates, if asterisk.conf has no other `mindtmfduration`; a longer key's tone is as
long as the key."""
FRAME_MS = 25
"""Time by which the end of a tone may be noticed later: with the next packet of sound."""
LATE_MS = 25
"""Time by which a second report may be later than computed: Asterisk's machine may be busy."""
SURELY_LATE_MS = 1000
"""The same for a key that was certainly put aside: its second report is awaited longer."""
MIN_INTERVAL_MS = 60
"""Shortest time between two keys, also if the keys themselves are shorter."""
SAME_KEY_MS = 30
"""Time within which two reports are one key, of a phone that sends its keys in two ways (RFC 4733 and INFO)."""
LONG_KEY_MS = 150
"""Duration of a long key: two of them can't end within half of it, unless the network stood still for longer. INFO
mostly states 160 or 250, for any key; many phones send such durations by RFC 4733, too."""
MAX_CHANNELS = 20_000
"""Maximum number of channels whose last key is remembered; those without a key for longest are forgotten first."""
UNBOUNDED = float("-inf"), float("-inf")


@dataclass(slots=True)
class _Channel:
    next_key_ms: tuple[float, float] = UNBOUNDED
    """Earliest and latest time, in epoch milliseconds, from which Asterisk passes the next key on."""
    digit: str = ""
    duration_ms: int = 0
    at_ms: float = 0.0
    repeat_until_ms: float | None = None
    """Epoch milliseconds until which the last key may be reported again; None: it may not."""
    put_aside: bool = False
    """True if Asterisk certainly puts the last key aside."""

    def observe(self, digit: str, duration_ms: int, at_ms: float) -> bool:
        """Note a report of a key, and return True if the key was reported already."""
        elapsed_ms = at_ms - self.at_ms
        if elapsed_ms < 0:
            # Asterisk's clock was set back.
            self.next_key_ms, self.digit, self.repeat_until_ms = UNBOUNDED, "", None
        same = digit == self.digit
        again = same and duration_ms == self.duration_ms and self._is_awaited(duration_ms, at_ms)
        shorter_ms = min(duration_ms, self.duration_ms)
        long = shorter_ms >= LONG_KEY_MS
        # Short reports of the same duration may be two keys that the network delayed.
        twice = (
            same
            and elapsed_ms < (shorter_ms / 2 if long else SAME_KEY_MS)
            and (long or duration_ms != self.duration_ms)
        )
        early, late = self.next_key_ms
        tone_ms = max(duration_ms, MIN_TONE_MS)
        # Asterisk generates a tone for a key that was put aside, and possibly for others.
        self.next_key_ms = at_ms + GAP_MS + (duration_ms if again else 0), at_ms + GAP_MS + tone_ms + FRAME_MS
        # A key that was put aside and is reported again made the next key wait, which may therefore follow immediately.
        self.digit, self.duration_ms, self.at_ms = "" if again else digit, duration_ms, at_ms
        self.put_aside = not again and at_ms < early
        self.repeat_until_ms = None
        if not again and at_ms < late:
            self.repeat_until_ms = late + (SURELY_LATE_MS if self.put_aside else LATE_MS)
        return again or twice

    def _is_awaited(self, duration_ms: int, at_ms: float) -> bool:
        if self.repeat_until_ms is None or at_ms > self.repeat_until_ms:
            return False
        return self.put_aside or at_ms - self.at_ms < max(duration_ms, MIN_INTERVAL_MS)


class RepeatedDigitFilter:
    """Filter for the keys of all channels."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}

    def is_repeated(self, message: Mapping[str, Any]) -> bool:
        """Return True if the event reports a key that was reported before. Call it for each event, once, in order."""
        match message:
            case {"type": "ChannelDtmfReceived", "channel": {"id": str(channel_id)}, "digit": str(digit)}:
                at_ms, duration_ms = _epoch_ms(message.get("timestamp")), message.get("duration_ms")
                if at_ms is None or not isinstance(duration_ms, int):
                    return False
                return self._channel(channel_id).observe(digit, duration_ms, at_ms)
            case {"type": "StasisEnd" | "ChannelDestroyed", "channel": {"id": str(channel_id)}}:
                self._channels.pop(channel_id, None)
        return False

    def _channel(self, channel_id: str) -> _Channel:
        # Move the channel to the end of the dictionary: it was used last.
        self._channels[channel_id] = channel = self._channels.pop(channel_id, None) or _Channel()
        if len(self._channels) > MAX_CHANNELS:
            del self._channels[next(iter(self._channels))]
        return channel


def _epoch_ms(timestamp: object) -> float | None:
    """Return the epoch milliseconds of a timestamp by Asterisk's clock, or None. The time that an event took to arrive
    doesn't matter."""
    try:
        return datetime.fromisoformat(timestamp).timestamp() * 1000 if isinstance(timestamp, str) else None
    except (ValueError, OverflowError):
        return None
