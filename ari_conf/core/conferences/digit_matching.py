"""Digit matching: decides which digits of a member match a pattern, and which are relayed.

Spec: "literal. A match is reported when no longer pattern can still match, else 1500 ms after the last digit. Digits
that can no longer be part of a match are relayed if relayDTMF, in order. Matched digits never are."
"""

from __future__ import annotations

import msgspec

from ari_conf.core.frozen import Frozen

INTER_DIGIT_TIMEOUT_MS = 1500


class DigitRun(Frozen):
    text: str
    matched: bool
    """True: `text` is the pattern that matched. False: `text` is digits that no pattern matches."""


class DigitMatcher(msgspec.Struct):
    patterns: tuple[str, ...]
    pressed: str = ""
    """Digits for which it is undecided whether they match."""
    deadline: int | None = None

    def press(self, digit: str, now: int) -> list[DigitRun]:
        self.pressed += digit
        found = self._decide(final=False)
        self.deadline = now + INTER_DIGIT_TIMEOUT_MS if self.pressed else None
        return found

    def flush(self) -> list[DigitRun]:
        """Decide all pending digits, because no further digit will come."""
        self.deadline = None
        return self._decide(final=True)

    def _decide(self, final: bool) -> list[DigitRun]:
        found: list[DigitRun] = []
        while self.pressed:
            match, longer = "", False
            for pattern in self.patterns:
                if self.pressed.startswith(pattern):
                    match = pattern if len(pattern) > len(match) else match
                elif pattern.startswith(self.pressed):
                    longer = True
            if longer and not final:
                break
            text = match or self.pressed[0]
            self.pressed = self.pressed[len(text) :]
            if found and not match and not found[-1].matched:
                found[-1] = DigitRun(found[-1].text + text, False)
            else:
                found.append(DigitRun(text, bool(match)))
        return found
