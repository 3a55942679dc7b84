"""GetDigits: plays a prompt, collects digits, and decides when the input is complete."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ari_conf.core.bounds import MAX_DIGITS
from ari_conf.core.effects import Effect, Target
from ari_conf.core.elements import GetDigits, Play, Prompt
from ari_conf.core.events import DeadlineReached, DigitReceived, Event
from ari_conf.core.playback.player import Player

BEEP = Play("beep:digits")


class GatherState(StrEnum):
    PROMPT = "prompt"
    """The prompt plays."""
    FIRST_DIGIT = "first_digit"
    """The first digit is awaited."""
    NEXT_DIGIT = "next_digit"
    """A further digit is awaited."""
    INVALID = "invalid"
    """The invalid-digit sound plays."""
    COMPLETE = "complete"
    """GetDigits has ended with digits."""
    NO_INPUT = "no_input"
    """GetDigits has ended without digits."""


FINAL_STATES = GatherState.COMPLETE, GatherState.NO_INPUT


class Gather(msgspec.Struct, tag=True):
    element: GetDigits
    owner: str
    target: Target
    state: GatherState = GatherState.PROMPT
    attempts: int = 0
    digits: str = ""
    player: Player | None = None
    """Player of the prompt or of the invalid-digit sound."""
    players: int = 0
    """Number of players so far: part of their ids."""
    timer_at: int | None = None
    """Epoch milliseconds until which the digit is awaited."""

    @property
    def deadline(self) -> int | None:
        times = [self.timer_at, self.player.deadline if self.player else None]
        return min((t for t in times if t is not None), default=None)

    @property
    def ended(self) -> bool:
        return self.state in FINAL_STATES

    def start(self, now: int) -> list[Effect]:
        """Start an attempt. The element's `retries` is the total number of attempts."""
        self.attempts += 1
        self.digits, self.timer_at = "", None
        self.state = GatherState.PROMPT
        items = self.element.prompt + ((BEEP,) if self.element.play_beep else ())
        return self._play(items, now)

    def stop(self) -> list[Effect]:
        player, self.player, self.timer_at = self.player, None, None
        return player.stop() if player else []

    def handle_event(self, event: Event, now: int) -> list[Effect]:
        match event:
            case DigitReceived(_, digit) if not self.ended and self.state is not GatherState.INVALID:
                return self._on_digit(digit, now)
            case DeadlineReached() if self.timer_at is not None and self.timer_at <= now:
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
        if self.state is GatherState.INVALID:
            return self._next_attempt(now)
        if self.state is GatherState.PROMPT:
            # Spec: "timeout (to the first digit)", counted from the prompt's end
            self.state, self.timer_at = GatherState.FIRST_DIGIT, now + self.element.timeout * 1000
        return []

    def _on_digit(self, digit: str, now: int) -> list[Effect]:
        # Spec: "the prompt, cut short by the first digit"
        effects = self.stop()
        if digit in self.element.finish_on_key:
            return effects + self._finish_attempt(now)
        if digit not in self.element.valid_digits:
            return effects + self._invalid(now)
        self.digits += digit
        self.state = GatherState.NEXT_DIGIT
        if len(self.digits) >= min(self.element.num_digits, MAX_DIGITS):
            return effects + self._finish_attempt(now)
        self.timer_at = now + self.element.digit_timeout * 1000
        return effects

    def _invalid(self, now: int) -> list[Effect]:
        """End the attempt, because the digit is not valid (decided)."""
        self.digits = ""
        if self.element.invalid_digits_sound is None:
            return self._next_attempt(now)
        self.state = GatherState.INVALID
        return self._play((Play(self.element.invalid_digits_sound),), now)

    def _finish_attempt(self, now: int) -> list[Effect]:
        self.timer_at = None
        if self.digits:
            self.state = GatherState.COMPLETE
            return []
        return self._next_attempt(now)

    def _next_attempt(self, now: int) -> list[Effect]:
        if self.attempts < self.element.retries:
            return self.start(now)
        self.state, self.timer_at = GatherState.NO_INPUT, None
        return []
