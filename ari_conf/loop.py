"""The loop around the core: event -> core -> step -> writer, and the timer for the next deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from ari_conf.call_log import CallLog
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.directory import Directory
from ari_conf.core.internal import Out
from ari_conf.log_fields import fields_of, tell
from ari_conf.steps import Steps
from ari_conf.writer import Writer

log = structlog.get_logger()

TIMER_SET_MS = 1000
"""The event loop's clock stands still while the machine sleeps, and ours doesn't: the timer is set again and again."""
TALK = (ev.TalkingStarted, ev.TalkingFinished, ev.StreamSeen, ev.AudioStopped)
HELD_S = 0.25
"""Until it is looked again whether time may pass."""


class Loop:
    def __init__(
        self,
        directory: Directory,
        steps: Steps,
        writer: Writer,
        now_ms: Callable[[], int],
        *,
        before: Callable[[ev.Event, int], None],
        time_passed: Callable[[], None],
        holds_time: Callable[[], bool],
    ) -> None:
        """`before` looks at each event before the core changes with it; `time_passed` brings TimePassed to `receive`;
        while `holds_time`, nothing becomes due."""
        self._directory = directory
        self._steps = steps
        self._call_log = CallLog(directory)
        self._writer = writer
        self._now_ms = now_ms
        self._before = before
        self._time_passed = time_passed
        self._holds_time = holds_time
        self._timer: asyncio.TimerHandle | None = None
        self._timer_set: tuple[int, int | None] = 0, None
        """When, for which deadline."""

    def receive(self, event: ev.Event) -> None:
        now = self._now_ms()
        told = fields_of(event, self._directory.whose)
        self._before(event, now)
        try:
            effects = self._directory.receive(event, now)
        except Exception:
            log.exception(
                "a step broke: this is a defect of ari_conf, please report it", event_type=type(event).__name__
            )
            effects = self._directory.give_up(event, now)
        tell("event", event, told)
        # One who is inaudible is not to wait for it.
        urgent = bool(effects) and isinstance(event, ev.StreamSeen)
        self._put(effects, now, may_linger=isinstance(event, TALK) and not urgent)

    def resume(self, out: Out) -> None:
        """What is to be done again."""
        now = self._now_ms()
        self._put(self._directory.resume(out, now), now)

    def give_up(self, keys: Iterable[str]) -> None:
        """After `resume` raised: those calls and conferences, and what it has changed."""
        now = self._now_ms()
        self._put(self._directory.give_up(ev.TimePassed(), now, keys), now)

    def put(self, effects: list[do.Effect]) -> None:
        """What was decided elsewhere."""
        self._put(effects, self._now_ms())

    def reply(self, reply: do.Reply) -> None:
        self._put([reply], self._now_ms())

    def report(self, auth_id: str, text: str) -> None:
        """Among the account's problems."""
        self._put([do.ReportProblem(auth_id, "", None, text)], self._now_ms())

    def _put(self, effects: list[do.Effect], now: int, *, may_linger: bool = False) -> None:
        """The step that has just been made: to be written, then run. `may_linger`: it was made since somebody talks, or
        is silent; of anything else Asterisk would tell our successor nothing."""
        self._call_log.step(effects)
        if effects:
            self._writer.put(*self._steps.of(effects, now), may_linger=may_linger)
        elif self._directory.has_changed:
            (self._writer.linger if may_linger else self._writer.hurry)()
        self._set_timer(now)

    # Time.

    def set_timer(self) -> None:
        """Time may pass again: what is due is due at once."""
        self.stop()
        self._set_timer(self._now_ms())

    def _set_timer(self, now: int) -> None:
        deadline, (since, awaited) = self._directory.deadline, self._timer_set
        # Not at every event: that would take longer than the event itself.
        if self._timer is not None and awaited == deadline and 0 <= now - since < TIMER_SET_MS:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_set = None, (now, deadline)
        if deadline is not None:
            self._wait(max(0.0, (deadline - now) / 1000))

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._holds_time():
            self._wait(HELD_S)
        else:
            self._time_passed()

    def stop(self) -> None:
        """Nothing becomes due any more, until the timer is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
