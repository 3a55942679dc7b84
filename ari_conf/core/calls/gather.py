"""GetDigits: plays a prompt, collects digits, and decides when the input is complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ari_conf.core.bounds import MOST_DIGITS
from ari_conf.core.effects import Effect, Target
from ari_conf.core.elements import GetDigits, Play, Prompt
from ari_conf.core.events import DeadlineReached, DigitReceived, Event
from ari_conf.core.playback.player import Player

BEEP = Play("beep:digits")


@dataclass(slots=True)
class Gather:
    element: GetDigits
    owner: str
    target: Target
    phase: Literal["prompt", "first", "more", "invalid", "complete", "nothing"] = "prompt"
    """prompt: the prompt plays. first, more: the first or a further digit is awaited. invalid: the invalid-digit
    sound plays. complete, nothing: GetDigits has ended, with or without digits."""
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
        """Start an attempt. The element's `retries` is the total number of attempts."""
        self.tries += 1
        self.digits, self.until = "", None
        self.phase = "prompt"
        items = self.element.prompt + ((BEEP,) if self.element.play_beep else ())
        return self._play(items, now)

    def stop(self) -> list[Effect]:
        player, self.player, self.until = self.player, None, None
        return player.stop() if player else []

    def handle_event(self, event: Event, now: int) -> list[Effect]:
        match event:
            case DigitReceived(_, digit) if not self.ended and self.phase != "invalid":
                return self._on_digit(digit, now)
            case DeadlineReached() if self.until is not None and self.until <= now:
                return self._finish_attempt(now)
        if self.player is None:
            return []
        effects = self.player.handle_event(event, now)
        return effects + (self._on_prompt_finished(now) if self.player.done else [])

    def _play(self, items: tuple[Prompt, ...], now: int) -> list[Effect]:
        self.players += 1
        self.player = Player(f"{self.owner}.{self.players}", self.target, items, detects_audio=True)
        effects = self.player.start(now)
        return effects + (self._on_prompt_finished(now) if self.player.done else [])

    def _on_prompt_finished(self, now: int) -> list[Effect]:
        self.player = None
        if self.phase == "invalid":
            return self._next_attempt(now)
        if self.phase == "prompt":
            # Spec: "timeout (to the first digit)", counted from the prompt's end
            self.phase, self.until = "first", now + self.element.timeout * 1000
        return []

    def _on_digit(self, digit: str, now: int) -> list[Effect]:
        # Spec: "the prompt, cut short by the first digit"
        effects = self.stop()
        if digit in self.element.finish_on_key:
            return effects + self._finish_attempt(now)
        if digit not in self.element.valid_digits:
            return effects + self._invalid(now)
        self.digits += digit
        self.phase = "more"
        if len(self.digits) >= min(self.element.num_digits, MOST_DIGITS):
            return effects + self._finish_attempt(now)
        self.until = now + self.element.digit_timeout * 1000
        return effects

    def _invalid(self, now: int) -> list[Effect]:
        """End the attempt, because the digit is not valid (decided)."""
        self.digits = ""
        if self.element.invalid_digits_sound is None:
            return self._next_attempt(now)
        self.phase = "invalid"
        return self._play((Play(self.element.invalid_digits_sound),), now)

    def _finish_attempt(self, now: int) -> list[Effect]:
        self.until = None
        if self.digits:
            self.phase = "complete"
            return []
        return self._next_attempt(now)

    def _next_attempt(self, now: int) -> list[Effect]:
        if self.tries < self.element.retries:
            return self.start(now)
        self.phase, self.until = "nothing", None
        return []
