"""GetDigits: a prompt, the digits that are pressed, and when they are complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ari_conf.core.bounds import MOST_DIGITS
from ari_conf.core.effects import Effect, Target
from ari_conf.core.elements import GetDigits, Play, Prompt
from ari_conf.core.events import DigitReceived, Event, TimePassed
from ari_conf.core.player import Player

BEEP = Play("beep:digits")


@dataclass(slots=True)
class Gather:
    element: GetDigits
    owner: str
    target: Target
    phase: Literal["prompt", "first", "more", "invalid", "complete", "nothing"] = "prompt"
    """prompt: it is played. first, more: a digit is awaited. invalid: that sound is played. Then, the two ends."""
    tries: int = 0
    digits: str = ""
    player: Player | None = None
    players: int = 0
    until: int | None = None

    @property
    def deadline(self) -> int | None:
        times = [self.until, self.player.deadline if self.player else None]
        return min((t for t in times if t is not None), default=None)

    @property
    def ended(self) -> bool:
        return self.phase in ("complete", "nothing")

    def start(self, now: int) -> list[Effect]:
        """One more try: "retries" of them in all."""
        self.tries += 1
        self.digits, self.until = "", None
        self.phase = "prompt"
        items = self.element.prompt + ((BEEP,) if self.element.play_beep else ())
        return self._play(items, now)

    def stop(self) -> list[Effect]:
        player, self.player, self.until = self.player, None, None
        return player.stop() if player else []

    def receive(self, event: Event, now: int) -> list[Effect]:
        match event:
            case DigitReceived(_, digit) if not self.ended and self.phase != "invalid":
                return self._pressed(digit, now)
            case TimePassed() if self.until is not None and self.until <= now:
                return self._try_ended(now)
        if self.player is None:
            return []
        effects = self.player.receive(event, now)
        return effects + (self._played(now) if self.player.done else [])

    def _play(self, items: tuple[Prompt, ...], now: int) -> list[Effect]:
        self.players += 1
        self.player = Player(f"{self.owner}.{self.players}", self.target, items)
        effects = self.player.start(now)
        return effects + (self._played(now) if self.player.done else [])

    def _played(self, now: int) -> list[Effect]:
        self.player = None
        if self.phase == "invalid":
            return self._next_try(now)
        if self.phase == "prompt":
            # "timeout (to the first digit)", counted from the prompt's end
            self.phase, self.until = "first", now + self.element.timeout * 1000
        return []

    def _pressed(self, digit: str, now: int) -> list[Effect]:
        # "the prompt, cut short by the first digit"
        effects = self.stop()
        if digit in self.element.finish_on_key:
            return effects + self._try_ended(now)
        if digit not in self.element.valid_digits:
            return effects + self._invalid(now)
        self.digits += digit
        self.phase = "more"
        if len(self.digits) >= min(self.element.num_digits, MOST_DIGITS):
            return effects + self._try_ended(now)
        self.until = now + self.element.digit_timeout * 1000
        return effects

    def _invalid(self, now: int) -> list[Effect]:
        """A digit that is not valid ends the try (decided)."""
        self.digits = ""
        if self.element.invalid_digits_sound is None:
            return self._next_try(now)
        self.phase = "invalid"
        return self._play((Play(self.element.invalid_digits_sound),), now)

    def _try_ended(self, now: int) -> list[Effect]:
        self.until = None
        if self.digits:
            self.phase = "complete"
            return []
        return self._next_try(now)

    def _next_try(self, now: int) -> list[Effect]:
        if self.tries < self.element.retries:
            return self.start(now)
        self.phase, self.until = "nothing", None
        return []
