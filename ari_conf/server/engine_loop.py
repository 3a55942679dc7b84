"""Engine loop: event -> engine -> step -> writer, and the timer for the next deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.engine import Engine
from ari_conf.core.messages import Outputs
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.step_failed import StepFailed
from ari_conf.errors import REPORT_HINT
from ari_conf.observability.call_log import CallLog
from ari_conf.observability.log_fields import fields_of, log_item
from ari_conf.server.step_builder import StepBuilder
from ari_conf.server.step_writer import StepWriter

log = structlog.get_logger()

TIMER_REFRESH_MS = 1000
"""Milliseconds after which the timer is set again: the event loop's clock stops while the machine sleeps, the server's
clock doesn't."""
LINGERING_EVENTS = (ev.TalkingStarted, ev.TalkingFinished, ev.StreamSeen, ev.AudioStopped, ev.LineMeasured)
"""Events whose step may be written a moment later, together with others."""
ONCE = do.AddChannel, do.PlayMedia, do.FetchDocument, do.FetchSoundDocument, do.AdmitDial
"""Effects that do harm if this process carries them out twice: a channel that is added to its bridge again leaves it
first, a sound is heard twice, and an application is asked twice."""
MAX_BEGUN = 10_000
"""Number of these effects that are remembered until the takeover is over: the latest ones."""
BLOCKED_POLL_S = 0.25
"""Seconds between two checks whether deadlines may become due."""


class EngineLoop:
    def __init__(
        self,
        engine: Engine,
        step_builder: StepBuilder,
        step_writer: StepWriter,
        now_ms: Callable[[], int],
        *,
        observe: Callable[[ev.Event, int], None],
        submit_deadline: Callable[[], None],
        blocks_timers: Callable[[], bool],
        count_placed: Callable[[str, str], None] = lambda trunk, outcome: None,
    ) -> None:
        """Create the loop; the timer is not set yet.

        `observe` receives each event before the engine handles it. `submit_deadline` brings DeadlineReached to
        `handle_event`. While `blocks_timers` returns True, no deadline becomes due. `count_placed` gets the trunk and
        the outcome of each placed call that is over.
        """
        self._engine = engine
        self._step_builder = step_builder
        self._call_log = CallLog(engine, count_placed)
        self._step_writer = step_writer
        self._now_ms = now_ms
        self._observe = observe
        self._submit_deadline = submit_deadline
        self._blocks_timers = blocks_timers
        self._timer: asyncio.TimerHandle | None = None
        self._timer_set_for: tuple[int, int | None] = 0, None
        """Time at which the timer was set, and its deadline: milliseconds of the server's clock."""
        self._begun: dict[do.Effect, None] | None = {}
        """Effects of ONCE that this process has begun, in order. None: the takeover is over."""

    def handle_event(self, event: ev.Event) -> None:
        now = self._now_ms()
        log_fields = fields_of(event, self._engine.log_context)
        self._observe(event, now)
        try:
            effects = self._engine.handle_event(event, now)
        except StepFailed as failure:
            log.exception("step raised", event_type=type(event).__name__, hint=REPORT_HINT)
            effects = self._engine.abort_failed_step(failure, now)
        log_item("event", event, log_fields)
        # A changed stream may have made the caller inaudible: effects that correct this must not linger.
        urgent = bool(effects) and isinstance(event, ev.StreamSeen)
        self._submit(effects, now, may_linger=isinstance(event, LINGERING_EVENTS) and not urgent)

    def replay(self, out: Outputs) -> None:
        """Write and run the effects that a reconciliation repeats. Raises StepFailed.

        Events that come during a takeover have effects too. The state does not tell these from the effects that were
        lost with the previous process: they are not repeated.
        """
        now, begun = self._now_ms(), self._begun or {}
        effects = self._engine.replay(out, now)
        self._submit([effect for effect in effects if not isinstance(effect, ONCE) or effect not in begun], now)

    def end_takeover(self) -> None:
        """Note that all effects that may have been lost with the previous process have been repeated."""
        self._begun = None

    def abort(self, keys: Iterable[str]) -> None:
        """End the calls and conferences `keys`, and those that `replay` changed before it raised."""
        now = self._now_ms()
        self._submit(self._engine.abort(keys, now), now)

    def submit_effects(self, effects: list[do.Effect]) -> None:
        """Write and run effects that were decided outside `handle_event`, such as those of restoring the state."""
        self._submit(effects, self._now_ms())

    def reply(self, reply: do.CommandReply) -> None:
        self._submit([reply], self._now_ms())

    def report(self, auth_id: str, kind: ProblemKind, text: str) -> None:
        """Add a problem to those of the account."""
        self._submit([do.ReportProblem(auth_id, "", kind, None, text)], self._now_ms())

    def _submit(self, effects: list[do.Effect], now: int, *, may_linger: bool = False) -> None:
        """Submit the step that the engine has just made to the writer, and set the timer.

        `may_linger`: the step results only from talking, silence or a measurement. Asterisk would report nothing else
        again to the next process.
        """
        self._call_log.step(effects)
        if self._begun is not None:
            self._note_begun(self._begun, effects)
        if effects:
            self._step_writer.submit(*self._step_builder.build(effects, now), may_linger=may_linger)
        elif self._engine.last_step_changed_state:
            (self._step_writer.write_soon if may_linger else self._step_writer.write_now)()
        self._set_timer(now)

    @staticmethod
    def _note_begun(begun: dict[do.Effect, None], effects: list[do.Effect]) -> None:
        begun |= dict.fromkeys(effect for effect in effects if isinstance(effect, ONCE))
        while len(begun) > MAX_BEGUN:
            del begun[next(iter(begun))]

    # Time.

    def set_timer(self) -> None:
        """Allow deadlines to become due again; those that have passed are due immediately."""
        self.stop_timer()
        self._set_timer(self._now_ms())

    def _set_timer(self, now: int) -> None:
        deadline, (set_at, timer_deadline) = self._engine.deadline, self._timer_set_for
        # Setting the timer at every event would take longer than the event itself.
        if self._timer is not None and timer_deadline == deadline and 0 <= now - set_at < TIMER_REFRESH_MS:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_set_for = None, (now, deadline)
        if deadline is not None:
            self._start_timer(max(0.0, (deadline - now) / 1000))

    def _start_timer(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._blocks_timers():
            self._start_timer(BLOCKED_POLL_S)
        else:
            self._submit_deadline()

    def stop_timer(self) -> None:
        """Cancel the timer: no deadline becomes due until it is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
