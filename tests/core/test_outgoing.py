"""Plays of calls that the server places: from the request to the answer, or to whatever else becomes of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids, invariants
from ari_conf.core.calls.call_state import CallState
from ari_conf.core.elements import Conference, Wait
from ari_conf.core.engine import Engine
from tests.core.stage import CALLBACK, Stage

DOCUMENT = "http://document.example/placed"
RING = "http://ring.example/"


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.documents[DOCUMENT] = (Wait(60),)
    return stage


def ended(stage: Stage, name: str = "ann") -> tuple[str, ...]:
    (said,) = stage.told(name, "Hangup")
    return said["CallStatus"], said["HangupCause"], said["HangupCauseCode"], said["HangupSource"]


def replies(stage: Stage) -> list[tuple[int, dict[str, Any]]]:
    return [(reply.status, dict(reply.body)) for reply in stage.all(do.CommandReply)]


def state(stage: Stage, name: str = "ann") -> CallState | None:
    call = stage.call_of(name)
    assert call is None or list(invariants.call_violations(call)) == []
    return call.state if call is not None else None


def test_from_the_request_to_the_end(stage: Stage) -> None:
    stage.place("ann", ring_url=RING, headers=(("X-PH-Team", "red"),))
    assert replies(stage) == [(201, {"message": "call fired", "request_uuid": "call-ann"})]
    assert stage.all(do.CreateChannel)[0].endpoint == "PJSIP/ann@provider"
    assert stage.asterisk.dialed == ["PJSIP/ann@provider"] and state(stage) is CallState.DIALING
    stage.phone("ann", "ring")
    stage.phone("ann", "ring")
    assert state(stage) is CallState.RINGING and len(stage.told("ann", "Ring")) == 1
    stage.pass_time(30)
    stage.phone("ann", "pick_up")
    assert state(stage) is CallState.RUNNING
    stage.pass_time(7)
    stage.hang_up(stage.channel_of("ann"))
    (rings,), (asked,), (over,) = [stage.told("ann", event) for event in ("Ring", "StartApp", "Hangup")]
    for said in (rings, asked, over):
        assert said["X-PH-Team"] == "red" and said["Direction"] == "outbound"
        assert said["CallUUID"] == said["RequestUUID"] == said["ALegUUID"] == said["ALegRequestUUID"] == "call-ann"
    assert (rings["CallStatus"], asked["CallStatus"]) == ("ringing", "in-progress")
    assert (over["Duration"], over["BillDuration"], over["TotalCost"]) == ("37", "7", "0.00000")
    assert ended(stage) == ("completed", "NORMAL_CLEARING", "4000", "Callee")
    stage.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("cause", "status", "expected"),
    [
        (17, 486, ("busy", "USER_BUSY", "3010", "Carrier")),
        (21, 603, ("busy", "CALL_REJECTED", "3020", "Carrier")),
        (1, 404, ("failed", "UNALLOCATED_NUMBER", "2000", "Carrier")),
        (23, 302, ("failed", "REDIRECTION_TO_NEW_DESTINATION", "2000", "Carrier")),
        (16, 300, ("failed", "NORMAL_CLEARING", "2000", "Carrier")),
        (21, 401, ("failed", "CALL_REJECTED", "2010", "Carrier")),
        (21, 407, ("failed", "CALL_REJECTED", "2010", "Carrier")),
        (127, 423, ("failed", "INTERWORKING", "2010", "Carrier")),
        (127, 608, ("busy", "INTERWORKING", "3020", "Carrier")),
        (19, 480, ("no-answer", "NO_ANSWER", "3000", "Carrier")),
        (34, 503, ("failed", "NORMAL_CIRCUIT_CONGESTION", "2010", "Carrier")),
        (18, 408, ("failed", "NO_USER_RESPONSE", "2010", "Carrier")),
        (0, 0, ("failed", "NORMAL_UNSPECIFIED", "0", "Unknown")),
    ],
)
def test_a_refusal(stage: Stage, cause: int, status: int, expected: tuple[str, ...]) -> None:
    stage.place("ann")
    stage.refuse("ann", cause, status)
    assert ended(stage) == expected
    stage.assert_nothing_is_left()


def test_a_phone_that_rings_in_vain_has_not_answered(stage: Stage) -> None:
    stage.place("ann")
    stage.phone("ann", "ring")
    stage.refuse("ann", 18, 408)
    assert ended(stage) == ("no-answer", "NO_USER_RESPONSE", "3000", "Carrier")


# Ways.


def test_the_next_way_is_tried_if_one_is_congested_and_only_then(stage: Stage) -> None:
    ways = ("PJSIP/{name}@first", "PJSIP/{name}@unknown", "PJSIP/{name}@third")
    stage.place("ann", "bob", "cid", ways=ways)
    stage.refuse("ann", 34, 503)
    assert stage.asterisk.dialed[-1] == "PJSIP/ann@third" and state(stage) is CallState.DIALING
    stage.phone("ann", "pick_up")
    assert state(stage) is CallState.RUNNING
    stage.refuse("bob", 17, 486)
    stage.phone("cid", "ring")
    stage.refuse("cid", 34, 503)
    assert ended(stage, "bob")[0] == "busy" and ended(stage, "cid")[0] == "failed"
    assert stage.asterisk.dialed == [f"PJSIP/{name}@first" for name in ("ann", "bob", "cid")] + ["PJSIP/ann@third"]
    assert [record.trunk for record in stage.all(do.RecordDialing) if record.call_uuid == "call-ann"] == [
        *("PJSIP/{name}@first", "PJSIP/{name}@unknown", "PJSIP/{name}@third"),
        "PJSIP/{name}@third",
    ]


def test_a_provider_that_refuses_the_login_is_a_problem_and_the_next_way_is_tried(stage: Stage) -> None:
    stage.place("ann", ways=("PJSIP/{name}@first", "PJSIP/{name}@second"))
    stage.refuse("ann", 21, 401)
    assert stage.asterisk.dialed[-1] == "PJSIP/ann@second" and state(stage) is CallState.DIALING
    (problem,) = stage.all(do.ReportProblem)
    assert problem.text.endswith("@first: the provider refuses the trunk's login (401)")


def test_the_ring_timeout_counts_for_all_ways_together(stage: Stage) -> None:
    stage.place("ann", ways=("PJSIP/{name}@first", "PJSIP/{name}@second"), ring_timeout_s=40)
    stage.pass_time(32)
    stage.refuse("ann", 18, 408)
    stage.pass_time(8)
    assert ended(stage) == ("timeout", "NO_ANSWER", "6010", "Plivo")
    stage.assert_nothing_is_left()


def test_asterisk_knows_none_of_the_ways(stage: Stage) -> None:
    stage.place("ann", ways=("PJSIP/{name}@unknown", "PJSIP/{name}@unknown2"))
    assert ended(stage) == ("failed", "DESTINATION_OUT_OF_ORDER", "2010", "Carrier")
    assert len(stage.problems()) == 2
    stage.assert_nothing_is_left()


def test_a_late_event_of_an_earlier_way_has_no_effect(stage: Stage) -> None:
    stage.place("ann", ways=("PJSIP/{name}@first", "PJSIP/{name}@second"))
    first = stage.channel_of("ann")
    stage.refuse("ann", 34, 503)
    stage.tell(ev.ChannelRinging(first), ev.ChannelAnswered(first), ev.ChannelHungUp(first, 17, 486))
    assert state(stage) is CallState.DIALING and stage.channel_of("ann") != first


# Times.


def test_the_ring_timeout_cancels(stage: Stage) -> None:
    stage.place("ann", ring_timeout_s=30)
    stage.phone("ann", "ring")
    stage.pass_time(29)
    assert state(stage) is CallState.RINGING
    stage.pass_time(1)
    assert ended(stage) == ("timeout", "NO_ANSWER", "6010", "Plivo")
    stage.assert_nothing_is_left()


def test_hangup_on_ring_counts_from_the_ringing(stage: Stage) -> None:
    stage.place("ann", hangup_on_ring_s=5)
    stage.pass_time(20)
    stage.phone("ann", "ring")
    stage.pass_time(4)
    assert state(stage) is CallState.RINGING
    stage.pass_time(1)
    assert ended(stage) == ("timeout", "ORIGINATOR_CANCEL", "6000", "Plivo")


def test_hangup_on_ring_ends_with_the_answer(stage: Stage) -> None:
    stage.place("ann", hangup_on_ring_s=5)
    stage.phone("ann", "ring")
    stage.phone("ann", "pick_up")
    stage.pass_time(30)
    assert state(stage) is CallState.RUNNING


def test_the_time_limit_counts_from_the_answer_and_the_policy_may_shorten_it(stage: Stage) -> None:
    stage.place("ann", time_limit_s=10)
    stage.pass_time(60)
    stage.phone("ann", "pick_up")
    stage.pass_time(9)
    assert state(stage) is CallState.RUNNING
    stage.pass_time(1)
    assert ended(stage) == ("completed", "ALLOTTED_TIMEOUT", "6000", "Plivo")


def test_digits_with_pauses(stage: Stage) -> None:
    stage.place("ann", send_digits="12w3WW#@200")
    assert not stage.all(do.SendDigits)
    stage.phone("ann", "pick_up")
    sent = [(stage.now, effect.digits, effect.tone_ms) for effect in stage.all(do.SendDigits)]
    began = stage.now
    for _ in range(60):
        stage.pass_time(0.1)
        sent += [(stage.now, e.digits, e.tone_ms) for e in stage.all(do.SendDigits)[len(sent) :]]
    assert [(at - began, digits, tone_ms) for at, digits, tone_ms in sent] == [
        (0, "12", 200),
        (1100, "3", 200),
        (3400, "#", 200),
    ]
    assert state(stage) is CallState.RUNNING


# The API.


@pytest.mark.parametrize("does", [None, "ring", "send_early_media"])
def test_a_call_is_canceled(stage: Stage, does: Any) -> None:
    stage.place("ann")
    if does:
        stage.phone("ann", does)
    hang_up(stage, "ann")
    assert ended(stage) == ("cancel", "ORIGINATOR_CANCEL", "1000", "API Request")
    stage.assert_nothing_is_left()


def hang_up(stage: Stage, name: str) -> None:
    addressed = api.ForCall("A", f"call-{name}", api.HangUpCall())
    stage.tell(ev.CommandReceived("x", addressed, stage.now + 5000))


def test_a_call_is_canceled_before_its_channel_exists(stage: Stage) -> None:
    stage.held = {do.CreateChannel}
    stage.place("ann")
    hang_up(stage, "ann")
    stage.let_go()
    assert ended(stage)[0] == "cancel" and stage.asterisk.dialed == []
    stage.assert_nothing_is_left()


def test_an_answer_that_crosses_the_cancel_does_not_count(stage: Stage) -> None:
    stage.place("ann")
    stage.phone("ann", "ring")
    stage.held = {do.HangUp}
    hang_up(stage, "ann")
    stage.phone("ann", "pick_up")
    stage.let_go()
    assert ended(stage)[0] == "cancel" and not stage.told("ann", "StartApp")
    stage.assert_nothing_is_left()


def test_a_request_that_was_refused_meanwhile_dials_nothing(stage: Stage) -> None:
    stage.held = {do.CreateChannel}
    stage.place("ann", ways=("PJSIP/{name}@first", "PJSIP/{name}@second"))
    stage.pass_time(6)
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "expired", refused=True))
    assert stage.asterisk.dialed == [] and len(stage.all(do.CreateChannel)) == 1
    stage.assert_nothing_is_left()


def test_several_destinations(stage: Stage) -> None:
    stage.place("ann", "bob")
    assert replies(stage) == [(201, {"message": "calls fired", "request_uuid": ("call-ann", "call-bob")})]
    assert stage.asterisk.dialed == ["PJSIP/ann@provider", "PJSIP/bob@provider"]


def test_a_late_command_dials_nothing(stage: Stage) -> None:
    account_command = stage.place("ann")
    assert account_command
    (received,) = [event for event in stage.events if isinstance(event, ev.CommandReceived)]
    stage.tell(msgspec.structs.replace(received, command_id="late", expires_at=stage.now))
    assert replies(stage)[-1][0] == 503 and len(stage.asterisk.dialed) == 1


def test_no_more_calls_than_the_account_may_have(stage: Stage) -> None:
    stage.engine.calls_per_account = 2
    stage.place("ann", "bob", "cid")
    assert replies(stage)[0][0] == 403 and not stage.engine.calls and stage.asterisk.dialed == []
    stage.place("ann", "bob")
    assert replies(stage)[1][0] == 201


# The queue.


@pytest.fixture
def paced(stage: Stage) -> Stage:
    stage.engine = Engine(lambda: "id", dials_per_second=2)
    return stage


def test_calls_beyond_the_rate_are_queued(paced: Stage) -> None:
    paced.place("a", "b", "c", "d", "e")
    assert replies(paced)[0][1]["message"] == "call queued"
    dialed = [len(paced.asterisk.dialed)]
    for _ in range(4):
        paced.pass_time(0.5)
        dialed.append(len(paced.asterisk.dialed))
    assert dialed == [2, 3, 4, 5, 5]
    assert state(paced, "e") is CallState.DIALING


def test_the_rate_is_each_account_s_own(paced: Stage) -> None:
    paced.place("a", "b", "c")
    paced.place("d", auth="B")
    assert paced.asterisk.dialed == [f"PJSIP/{name}@provider" for name in "abd"]


def test_a_queued_call_is_canceled(paced: Stage) -> None:
    paced.place("a", "b", "c")
    assert state(paced, "c") is CallState.QUEUED
    hang_up(paced, "c")
    assert ended(paced, "c") == ("cancel", "ORIGINATOR_CANCEL", "1000", "API Request")
    paced.pass_time(5)
    assert paced.asterisk.dialed == ["PJSIP/a@provider", "PJSIP/b@provider"]


def test_the_queue_is_bounded_and_a_refused_request_does_not_count(paced: Stage) -> None:
    names = [f"n{number}" for number in range(1000)]
    paced.place(*names)
    paced.place(*(f"x{name}" for name in names))
    pace = paced.engine.registry.dial_pace
    before = pace.plan("A", 1, paced.now)
    paced.place(*(f"y{name}" for name in names))
    assert pace.plan("A", 1, paced.now) == before
    assert [status for status, _ in replies(paced)] == [201, 201, 429]
    assert len(paced.engine.calls) == 2000


# A conference instead of a document.


def test_a_placed_call_joins_a_conference_at_once(stage: Stage) -> None:
    stage.place("ann", answer_url=None, conference=Conference("standup", callback_url=CALLBACK))
    stage.phone("ann", "pick_up")
    assert state(stage) is CallState.IN_CONFERENCE
    assert stage.callbacks(ConferenceAction="enter")[0]["Direction"] == "outbound"
    hang_up(stage, "ann")
    stage.assert_nothing_is_left()


# Channels that nobody waits for.


def test_a_created_channel_of_no_call_is_hung_up(stage: Stage) -> None:
    channel_id = ids.channel_id("gone", 1)
    stage.asterisk.obey(do.CreateChannel(channel_id, "PJSIP/x@provider", "", ""))
    stage.go_on()
    stage.assert_nothing_is_left()


def test_a_channel_that_may_not_have_been_dialed_is_replaced_after_a_while(stage: Stage) -> None:
    stage.failing[do.DialChannel] = 1
    stage.place("ann")
    first = stage.channel_of("ann")
    assert stage.asterisk.dialed == []
    stage.pass_time(5)
    assert stage.asterisk.dialed == ["PJSIP/ann@provider"] and stage.channel_of("ann") != first
    assert first not in stage.asterisk.channels
    stage.phone("ann", "pick_up")
    assert state(stage) is CallState.RUNNING


def test_a_channel_that_was_dialed_after_all_is_kept(stage: Stage) -> None:
    stage.place("ann")
    stage.tell(ev.DialUnconfirmed(stage.channel_of("ann")))
    stage.phone("ann", "ring")
    stage.pass_time(60)
    assert len(stage.asterisk.dialed) == 1 and state(stage) is CallState.RINGING


def test_asterisk_never_dials(stage: Stage) -> None:
    stage.failing[do.DialChannel] = 100
    stage.place("ann", ring_timeout_s=600)
    stage.pass_time(60)
    assert ended(stage) == ("failed", "DESTINATION_OUT_OF_ORDER", "2010", "Error")
    stage.assert_nothing_is_left()


def test_a_call_is_recorded_from_its_answer_on(stage: Stage) -> None:
    """Before, its channel may be replaced by that of another way."""
    stage.place("ann")
    record = api.ForCall("A", "call-ann", api.RecordCall("r1"))
    for number, status in ((1, 409), (2, 202)):
        stage.tell(ev.CommandReceived(f"record-{number}", record, stage.now + 5000))
        assert replies(stage)[-1][0] == status
        stage.phone("ann", "pick_up")
