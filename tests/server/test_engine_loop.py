"""Tests of the loop around the core: the results of an event are written and run, and timers fire in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.account import Account
from ari_conf.core.elements import Conference, GetDigits, Hangup, Wait
from ari_conf.core.engine import Engine
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.messages import SoundDocumentRequested
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.reconciliation.plan import effects_to_repeat
from ari_conf.core.step_failed import StepFailed
from ari_conf.server import engine_loop
from ari_conf.server.engine_loop import BLOCKED_POLL_S, TIMER_REFRESH_MS, EngineLoop
from ari_conf.server.step_builder import StepBuilder
from ari_conf.settings import from_environment
from ari_conf.store.state_store import Step

NOW = 1_790_000_000_000
HOUR = 3_600_000


class Written:
    """Stand-in for the writer."""

    def __init__(self) -> None:
        self.steps: list[tuple[Step, list[do.Effect]]] = []
        self.lingers = 0

    def submit(self, step: Step, effects: Sequence[do.Effect], *, may_linger: bool = False) -> None:
        self.steps.append((step, list(effects)))

    def write_now(self) -> None:
        pass

    def write_soon(self) -> None:
        self.lingers += 1

    @property
    def effects(self) -> list[do.Effect]:
        return [effect for _, effects in self.steps for effect in effects]


class Timers:
    """Stand-in for the event loop's clock, which the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.set = 0
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self.call_later)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        assert seconds >= 0
        self.set += 1
        entry = (self.now + seconds, call)
        self.due.append(entry)

        class Handle:
            @staticmethod
            def cancel() -> None:
                if entry in self.due:
                    self.due.remove(entry)

        return Handle


class Place:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        self.engine = Engine(iter(map(str, range(1000))).__next__)
        self.written = Written()
        self.held = False
        self.seen: list[ev.Event] = []
        self.timers = Timers(monkeypatch)
        steps = StepBuilder(self.engine, from_environment({}), lambda reply: lambda pipe: None)
        self.loop = EngineLoop(
            self.engine,
            steps,
            self.written,  # type: ignore[arg-type]
            lambda: self.now,
            observe=lambda event, now: self.seen.append(event),
            submit_deadline=lambda: self.loop.handle_event(ev.DeadlineReached()),
            blocks_timers=lambda: self.held,
        )

    def call(self, name: str, *document: Any) -> None:
        """Let `name` call and receive that document."""
        uuid = f"call-{name}"
        arrived = ev.CallArrived(name, uuid, "r", "A", "1", "2", document="http://d.example/", answered=True)
        self.loop.handle_event(arrived)
        self.loop.handle_event(ev.CallIdentified(uuid, Account("A"), (), False))
        (asked,) = (e for e in self.written.effects[-1:] if isinstance(e, do.FetchDocument))
        self.loop.handle_event(ev.DocumentFetched(asked.fetch_id, document, ()))

    def pass_ms(self, ms: int) -> None:
        """Advance the event loop's clock and the server's."""
        until = self.timers.now + ms / 1000
        while soon := [entry for entry in self.timers.due if entry[0] <= until]:
            entry = min(soon, key=lambda each: each[0])
            self.timers.due.remove(entry)
            self.now += round((entry[0] - self.timers.now) * 1000)
            self.timers.now = entry[0]
            entry[1]()
        self.now += round((until - self.timers.now) * 1000)
        self.timers.now = until

    def hung_up(self) -> list[str]:
        """Return the channels in the order of their hangups, each of which may be requested again."""
        asked = [effect.channel_id for effect in self.written.effects if isinstance(effect, do.HangUp)]
        return list(dict.fromkeys(asked))


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


async def test_deadlines_come_in_order_and_on_time(place: Place) -> None:
    place.call("ann", Wait(5), Wait(3), Hangup())
    place.pass_ms(4999)
    assert ev.DeadlineReached() not in place.seen
    place.pass_ms(1)
    assert place.seen.count(ev.DeadlineReached()) == 1 and place.hung_up() == []
    place.pass_ms(3000)
    assert place.hung_up() == ["ann"]


async def test_an_earlier_deadline_takes_the_place_of_a_later_one(place: Place) -> None:
    place.call("ann", Wait(60), Hangup())
    place.call("bob", Wait(2), Hangup())
    place.pass_ms(2000)
    assert place.hung_up() == ["bob"]
    place.pass_ms(58_000)
    assert place.hung_up() == ["bob", "ann"]


async def test_a_digit_puts_the_deadline_off(place: Place) -> None:
    place.call("ann", GetDigits(timeout=5, digit_timeout=5, num_digits=9), Hangup())
    place.pass_ms(4000)
    place.loop.handle_event(ev.DigitReceived("ann", "1"))
    place.pass_ms(4000)
    assert place.hung_up() == []
    place.pass_ms(1000)
    assert place.hung_up() == ["ann"]


async def test_the_timer_is_set_again_where_the_machine_slept(place: Place) -> None:
    """The event loop's clock stood still while the server's did not: the next event notices it."""
    place.call("ann", Wait(60), Hangup())
    place.now += 61_000
    place.loop.handle_event(ev.TalkingStarted("nobody"))
    place.pass_ms(0)
    assert place.hung_up() == ["ann"]


async def test_but_it_is_not_set_at_each_event(place: Place) -> None:
    place.call("ann", Wait(60))
    before = place.timers.set
    for _ in range(100):
        place.loop.handle_event(ev.TalkingStarted("ann"))
        place.now += TIMER_REFRESH_MS // 100
    assert place.timers.set - before <= 2


async def test_while_time_is_held_nothing_becomes_due(place: Place) -> None:
    place.call("ann", Wait(5), Hangup())
    place.held = True
    place.pass_ms(HOUR)
    assert ev.DeadlineReached() not in place.seen
    place.held = False
    place.loop.set_timer()
    place.pass_ms(0)
    assert place.hung_up() == ["ann"]


async def test_it_is_looked_again_whether_it_is_still_held(place: Place) -> None:
    place.call("ann", Wait(5), Hangup())
    place.held = True
    place.pass_ms(6000)
    place.held = False
    place.pass_ms(round(BLOCKED_POLL_S * 1000))
    assert place.hung_up() == ["ann"]


async def test_after_the_end_nothing_becomes_due(place: Place) -> None:
    place.call("ann", Wait(5), Hangup())
    place.loop.stop_timer()
    place.pass_ms(HOUR)
    assert place.hung_up() == []


async def test_a_step_that_breaks_ends_the_call_that_it_was_for_and_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that raises is a bug."""
    for name in ("ann", "bob"):
        place.call(name, Wait(60))
    place.written.steps.clear()

    def breaks(*_: object) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, capture_logs() as logged:
        patch.setattr("ari_conf.core.calls.call.Call.handle_event", breaks)
        place.loop.handle_event(ev.DigitReceived("ann", "1"))
    assert any("internal error in ari_conf" in line.get("hint", "") for line in logged)
    ((step, effects),) = place.written.steps
    assert do.HangUp("ann") in effects and place.hung_up() == ["ann"]
    assert "call-ann" in step.state
    assert [problem.call_uuid for problem in step.problems] == ["call-ann"]
    place.loop.handle_event(ev.DigitReceived("bob", "1"))
    place.loop.handle_event(ev.ChannelHungUp("ann", 16))
    assert set(place.engine.calls) == {"call-bob"}


async def test_only_the_call_of_a_replay_that_raised_is_aborted(place: Place) -> None:
    for name in ("ann", "bob"):
        place.call(name, Wait(60))
    place.written.steps.clear()
    # Changes from before, which are not written yet, must not be lost.
    place.loop.handle_event(ev.DigitReceived("bob", "1"))
    with pytest.raises(StepFailed):
        place.loop.replay([SoundDocumentRequested("f", "nobody", "http://sounds.example/", ())])
    place.loop.abort(["call-ann", "call-gone"])
    place.loop.handle_event(ev.ChannelHungUp("ann", 16))
    assert place.hung_up() == ["ann"] and set(place.engine.calls) == {"call-bob"}


async def test_reported_problem_reaches_the_account(place: Place) -> None:
    place.loop.report("A", ProblemKind.RECORDINGS_WAIT, "the disk is full")
    ((step, effects),) = place.written.steps
    assert step.problems == [do.ReportProblem("A", "", ProblemKind.RECORDINGS_WAIT, None, "the disk is full")]
    assert effects == [] and step.now_ms == NOW


async def test_a_step_carries_the_time_of_our_clock(place: Place) -> None:
    place.now = NOW + 12_345
    place.loop.reply(do.CommandReply("command", 404))
    ((step, _),) = place.written.steps
    assert step.now_ms == NOW + 12_345


async def test_a_call_is_one_line_of_the_log_when_it_is_over(place: Place) -> None:
    with capture_logs() as logged:
        place.call("ann", Conference("standup"))
        claim = next(effect for effect in reversed(place.written.effects) if isinstance(effect, do.ClaimName))
        place.loop.handle_event(ev.NameClaimed(claim.conference_id))
        place.loop.handle_event(ev.BridgeCreated(ids.bridge_id(claim.conference_id)))
        place.call("bob", Wait(60))
        assert [line["event"] for line in logged if line["log_level"] == "info"] == []
        place.now += 7500
        place.loop.handle_event(ev.ChannelHungUp("ann", 16))
        place.loop.handle_event(ev.ChannelLeftBridge("ann", ids.bridge_id(claim.conference_id)))
        place.loop.handle_event(ev.ChannelHungUp("bob", 38))
    ann, bob = (line for line in logged if line["log_level"] == "info")
    assert ann == {
        "event": "call", "log_level": "info", "call_uuid": "call-ann", "auth_id": "A", "from": "1", "to": "2",
        "document": "http://d.example/", "documents": 1, "conference": "standup", "answered": True,
        "duration_s": 7.5, "cause": "NORMAL_CLEARING", "code": 4000,
    }  # fmt: skip
    assert "conference" not in bob and bob["cause"] == "NETWORK_OUT_OF_ORDER"
    assert not place.engine.registry.ended_calls


async def test_a_line_for_a_call_holds_no_query_of_a_url(place: Place) -> None:
    with capture_logs() as logged:
        uuid = "call-ann"
        place.loop.handle_event(
            ev.CallArrived("ann", uuid, "r", "A", "1", "2", document="http://d.example/a?pin=271828")
        )
        place.loop.handle_event(ev.CallIdentified(uuid, Account("A"), (), False))
        place.loop.handle_event(ev.ChannelHungUp("ann", 16))
    (line,) = (line for line in logged if line["log_level"] == "info")
    assert line["document"] == "http://d.example/a" and line["answered"] is False


async def test_what_an_event_leads_to_during_a_takeover_is_not_done_twice(place: Place) -> None:
    """Asterisk would take a channel that is added to its bridge again out of it first: they would count as gone."""
    place.call("ann", Conference("standup"))
    before = AsteriskState({"ann": True, "bob": True}, {"b.x": frozenset()})
    place.call("bob", Conference("standup"))
    claim = next(effect for effect in place.written.effects if isinstance(effect, do.ClaimName))
    place.loop.handle_event(ev.NameClaimed(claim.conference_id))
    (create,) = (effect for effect in place.written.effects if isinstance(effect, do.CreateBridge))
    place.loop.handle_event(ev.BridgeCreated(create.bridge_id))
    added = [effect for effect in place.written.effects if isinstance(effect, do.AddChannel)]
    assert len(added) == 2
    repeated = effects_to_repeat(place.engine, before)
    assert [effect for effect in repeated if isinstance(effect, do.AddChannel)] == added
    lost = do.AddChannel("cid", create.bridge_id, 3)
    place.loop.replay([*repeated, lost])
    assert [effect for effect in place.written.effects if isinstance(effect, do.AddChannel)] == [*added, lost]
    place.loop.replay([lost])
    assert place.written.effects.count(lost) == 1
    place.loop.end_takeover()
    place.loop.replay([lost])
    assert place.written.effects.count(lost) == 2


async def test_what_is_remembered_of_a_takeover_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_loop, "MAX_BEGUN", 2)
    added = [do.AddChannel(name, "b.x.bridge", 1) for name in ("ann", "bob", "cid")]
    place.loop.submit_effects([*added, do.HangUp("dan")])
    place.loop.replay([*added])
    assert [place.written.effects.count(effect) for effect in added] == [2, 1, 1]
