"""Digit sequence: digits that are sent to a phone with pauses in between, as `send_digits` and <DTMF> write them.

`1234` digits, `w` a pause of 0.5 s, `W` one of 1 s, and `@200` at the end the length of each tone in milliseconds.
"""

from __future__ import annotations

import re

import msgspec

from ari_conf.core.effects import Effect, SendDigits

PAUSES_MS = {"w": 500, "W": 1000}
TONE_MS, GAP_MS = 2000, 100
"""Length of a tone if the sequence does not say it (Plivo's), and of the silence between two tones."""
MIN_TONE_MS, MAX_TONE_MS = 40, 10_000
MAX_CHARACTERS = 100
WRITTEN = re.compile(rf"[0-9*#wW]{{1,{MAX_CHARACTERS}}}(?:@[0-9]{{1,5}})?")


class DigitSequence(msgspec.Struct):
    digits: str
    """Digits and pauses that are not sent yet, without the tones' length."""
    tone_ms: int = TONE_MS
    next_at: int | None = None
    """Epoch milliseconds at which the rest is due; None: the sequence has not begun, or is over."""

    def start(self, channel_id: str, now: int) -> list[Effect]:
        """Send the digits up to the first pause."""
        sent = self.digits[: len(self.digits) - len(self.digits.lstrip("0123456789*#"))]
        rest = self.digits[len(sent) :]
        pauses = rest[: len(rest) - len(rest.lstrip("wW"))]
        self.digits = rest[len(pauses) :]
        wait_ms = len(sent) * (self.tone_ms + GAP_MS) + sum(PAUSES_MS[pause] for pause in pauses)
        self.next_at = now + wait_ms if self.digits else None
        return [SendDigits(channel_id, sent, self.tone_ms)] if sent else []


def is_valid(text: str) -> bool:
    found = WRITTEN.fullmatch(text)
    _, _, tone_ms = text.partition("@")
    return found is not None and (not tone_ms or MIN_TONE_MS <= int(tone_ms) <= MAX_TONE_MS)


def parse(text: str) -> DigitSequence:
    """Return the sequence of a text that `is_valid`."""
    digits, _, tone_ms = text.partition("@")
    return DigitSequence(digits, int(tone_ms) if tone_ms else TONE_MS)
