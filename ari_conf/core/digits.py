"""Which digits of a member are a match, and which are passed on.

"literal. A match is reported when no longer pattern can still match, else 1500 ms after the last digit. Digits that can
no longer be part of a match are relayed if relayDTMF, in order. Matched digits never are."
"""

from __future__ import annotations

from dataclasses import dataclass

from ari_conf.core.fact import fact

PAUSE_MS = 1500


@fact
class Found:
    text: str
    matched: bool
    """True: the pattern that matched. False: digits that no pattern wants."""


@dataclass(slots=True)
class Matcher:
    patterns: tuple[str, ...]
    pressed: str = ""
    """Digits of which it is not yet known whether they match."""
    deadline: int | None = None

    def press(self, digit: str, now: int) -> list[Found]:
        self.pressed += digit
        found = self._decide(final=False)
        self.deadline = now + PAUSE_MS if self.pressed else None
        return found

    def flush(self) -> list[Found]:
        """No further digit will come."""
        self.deadline = None
        return self._decide(final=True)

    def _decide(self, final: bool) -> list[Found]:
        found: list[Found] = []
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
                found[-1] = Found(found[-1].text + text, False)
            else:
                found.append(Found(text, bool(match)))
        return found
