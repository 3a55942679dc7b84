"""Live media: what the API plays and sends to a single call, whatever its document does meanwhile.

Outside a conference, the call plays the sounds itself; in a conference, they are private playback of the member. Digits
are scheduled here in both cases. Asterisk plays sounds to a channel one after another, and sends digits in between, so
whatever is to be heard at once must interrupt the sound that plays (`player.interrupted`).
"""

from __future__ import annotations

import msgspec

from ari_conf.core.digit_sequence import PAUSES_MS
from ari_conf.core.effects import Effect
from ari_conf.core.playback.player import PlayerState
from ari_conf.core.playback.private_playback import PrivatePlayback

LIVE = "live"
"""Part of the ids of the sounds that the API plays to a call."""
DIGIT_MS = 200
"""Milliseconds that Asterisk takes for each digit: 100 of tone, 100 of silence."""
DIGITS_AT_ONCE = 10
"""Digits of one request to Asterisk: meanwhile it does nothing else for the channel, such as moving it."""
MAX_WAITING_DIGITS = 200
"""Digits of one call that wait to be sent; further ones of the API are refused, and those of a document wait."""
MAX_WAITING_MS = 600_000
"""Likewise, the time until all of them are sent: a text may consist of pauses."""
MAX_SCHEDULED_MS = 3_600_000
"""Digits that seem to take longer were scheduled before the system clock was set back."""
Schedule = tuple[tuple[int, str], ...]
"""Digits to send as (epoch milliseconds, digits), in order."""


class LiveMedia(msgspec.Struct):
    playback: PrivatePlayback = msgspec.field(default_factory=PrivatePlayback)
    holds: bool = False
    """True while the running element of the document plays nothing, because a sound of the API is heard."""
    digits: Schedule = ()
    digits_until: int = 0
    """Epoch milliseconds at which the digits so far are sent."""

    @property
    def deadline(self) -> int | None:
        digits_at = self.digits[0][0] if self.digits else None
        if digits_at is None or self.playback.deadline is None:
            return self.playback.deadline if digits_at is None else digits_at
        return min(digits_at, self.playback.deadline)

    def has_room_for(self, text: str, now: int) -> bool:
        """Return whether the digits may be scheduled without waiting for others."""
        waiting = sum(len(digits) for _, digits in self.digits)
        return waiting + len(text) <= MAX_WAITING_DIGITS and self.digits_until - now <= MAX_WAITING_MS

    def owns(self, playback_id: str) -> bool:
        return f".{LIVE}." in playback_id

    def awaits(self, playback_id: str) -> bool:
        """Return whether this sound is being prepared."""
        player = self.playback.player
        return player is not None and player.state is PlayerState.PREPARING and player.playback_id == playback_id

    def schedule(self, text: str, now: int) -> None:
        """Schedule digits and pauses, behind those that are scheduled already."""
        follows = 0 <= self.digits_until - now <= MAX_SCHEDULED_MS
        runs, self.digits_until = schedule(text, self.digits_until if follows else now)
        self.digits += runs

    def take_due(self, now: int) -> list[str]:
        due = [digits for at, digits in self.digits if at <= now]
        self.digits = self.digits[len(due) :]
        return due

    def stop(self) -> list[Effect]:
        """Drop all sounds and digits."""
        self.playback.queue, self.digits, self.digits_until, self.holds = [], (), 0, False
        return self.playback.stop()


class DigitSending(msgspec.Struct, tag=True):
    """A DTMF element that is not asynchronous: the next element runs once the digits are sent."""

    until: int
    """Epoch milliseconds."""

    @property
    def deadline(self) -> int:
        return self.until


def schedule(text: str, start: int) -> tuple[Schedule, int]:
    """Return the digits of the text as a schedule, and the epoch milliseconds at which the last one is sent."""
    runs: list[tuple[int, str]] = []
    at, run = start, ""
    for c in text:
        if run and (c in PAUSES_MS or len(run) == DIGITS_AT_ONCE):
            runs.append((at, run))
            at, run = at + len(run) * DIGIT_MS, ""
        if c in PAUSES_MS:
            at += PAUSES_MS[c]
        else:
            run += c
    if run:
        runs.append((at, run))
    return tuple(runs), at + len(run) * DIGIT_MS
