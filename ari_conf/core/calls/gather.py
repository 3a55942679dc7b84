"""GetDigits and GetInput: plays a prompt, collects digits, and decides when the input is complete."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from ari_conf.core.bounds import MAX_DIGITS
from ari_conf.core.effects import Effect, Target
from ari_conf.core.elements import AUTO_DIGIT_END_S, DIGITS, GetDigits, GetInput, Play, Prompt
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
    """The element has ended with digits."""
    NO_INPUT = "no_input"
    """The element has ended without digits."""


FINAL_STATES = GatherState.COMPLETE, GatherState.NO_INPUT


class GatherRules(NamedTuple):
    """Rules of the element for its input."""

    first_s: int
    """Seconds from the end of the prompt to the first digit."""
    next_s: int
    """Seconds between digits."""
    total_s: int | None
    """Seconds from the end of the prompt, or from the digit that cuts it short, for the whole input; None: no limit."""
    num_digits: int
    valid_digits: str
    retries: int
    invalid_digits_sound: str | None
    play_beep: bool


def rules_of(element: GetDigits | GetInput) -> GatherRules:
    if isinstance(element, GetInput):
        total_s, next_s = element.execution_timeout, element.digit_end_timeout or AUTO_DIGIT_END_S
        return GatherRules(total_s, next_s, total_s, element.num_digits, DIGITS, 1, None, False)
    return GatherRules(
        element.timeout,
        element.digit_timeout,
        None,
        min(element.num_digits, MAX_DIGITS),
        element.valid_digits,
        element.retries,
        element.invalid_digits_sound,
        element.play_beep,
    )


class Gather(msgspec.Struct, tag=True):
    element: GetDigits | GetInput
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
    ends_at: int | None = None
    """Epoch milliseconds until which the whole input is taken; None: no limit, or the prompt plays."""
    held: bool = False
    """True while the API plays a sound to the channel: the prompt waits."""

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
        items = self.element.prompt + ((BEEP,) if rules_of(self.element).play_beep else ())
        return self._play(items, now)

    def stop(self) -> list[Effect]:
        player, self.player, self.timer_at = self.player, None, None
        return player.stop() if player else []

    def hold(self, now: int) -> list[Effect]:
        """Interrupt the prompt, and play none until `release`. Digits are still taken, and the timers go on."""
        self.held = True
        return self.player.hold(now) if self.player else []

    def release(self, now: int) -> list[Effect]:
        self.held = False
        return self.player.release(now) if self.player else []

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
        self.player = Player(f"{self.owner}.{self.players}", self.target, items, detects_audio=True, held=self.held)
        effects = self.player.start(now)
        return effects + (self._on_prompt_finished(now) if self.player.done else [])

    def _on_prompt_finished(self, now: int) -> list[Effect]:
        self.player = None
        if self.state is GatherState.INVALID:
            return self._next_attempt(now)
        if self.state is GatherState.PROMPT:
            # Spec: "timeout (to the first digit)", counted from the prompt's end
            self.state, self.timer_at = GatherState.FIRST_DIGIT, now + rules_of(self.element).first_s * 1000
            self._start_total(now)
        return []

    def _start_total(self, now: int) -> None:
        total_s = rules_of(self.element).total_s
        if self.ends_at is None and total_s is not None:
            self.ends_at = now + total_s * 1000

    def _on_digit(self, digit: str, now: int) -> list[Effect]:
        # Spec: "the prompt, cut short by the first digit"
        effects, rules = self.stop(), rules_of(self.element)
        if digit in self.element.finish_on_key:
            return effects + self._finish_attempt(now)
        if digit not in rules.valid_digits:
            return effects + self._invalid(rules.invalid_digits_sound, now)
        self.digits += digit
        self.state = GatherState.NEXT_DIGIT
        if len(self.digits) >= rules.num_digits:
            return effects + self._finish_attempt(now)
        self._start_total(now)
        self.timer_at = now + rules.next_s * 1000
        if self.ends_at is not None:
            self.timer_at = max(now, min(self.timer_at, self.ends_at))
        return effects

    def _invalid(self, sound: str | None, now: int) -> list[Effect]:
        """End the attempt, because the digit is not valid (decided)."""
        self.digits = ""
        if sound is None:
            return self._next_attempt(now)
        self.state = GatherState.INVALID
        return self._play((Play(sound),), now)

    def _finish_attempt(self, now: int) -> list[Effect]:
        self.timer_at = None
        if self.digits:
            self.state = GatherState.COMPLETE
            return []
        return self._next_attempt(now)

    def _next_attempt(self, now: int) -> list[Effect]:
        if self.attempts < rules_of(self.element).retries:
            return self.start(now)
        self.state, self.timer_at = GatherState.NO_INPUT, None
        return []
