"""A placed call whose account has used up its minutes, in each state in which a call can be."""

import pytest

from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_state import CallState
from ari_conf.core.effects import HangUp, RecordDialing, ReportProblem
from ari_conf.core.placing import CallOptions, CallToPlace, DialAttempt
from ari_conf.core.problem_kinds import ProblemKind

NOW = 1_790_000_000_000
USED_UP = ev.MinutesUsedUp("c1")


def call(until: str) -> Call:
    placed = CallToPlace("c1", "+49171", "4930", "Ann", (DialAttempt("main", "PJSIP/49171@main"),), 60)
    found = Call.to_place(placed, CallOptions(answer_url="http://a.example/"), Account("A"), NOW, NOW + 10)
    if until != "queued":
        found.start_dialing(NOW)
        found.handle_event(ev.ChannelCreated(found.channel_id), NOW)
    if until in ("ringing", "answered"):
        found.handle_event(ev.ChannelRinging(found.channel_id), NOW)
    if until == "answered":
        found.handle_event(ev.ChannelAnswered(found.channel_id), NOW + 1000)
    return found


@pytest.mark.parametrize("state", ["queued", "dialing", "ringing", "answered"])
def test_it_is_hung_up_once_and_its_slot_is_freed(state: str):
    found = call(state)
    out = found.handle_event(USED_UP, NOW + 5000)
    assert [one.kind for one in out if isinstance(one, ReportProblem)] == [ProblemKind.MINUTES_USED_UP]
    assert [one for one in out if isinstance(one, HangUp)] == [HangUp(found.channel_id, "normal")]
    assert found.state is CallState.HANGING_UP
    assert found.handle_event(USED_UP, NOW + 5001) == []
    ended = found.handle_event(ev.ChannelHungUp(found.channel_id, 0), NOW + 5100)
    (record,) = [one for one in ended if isinstance(one, RecordDialing)]
    answered_ms = NOW + 1000 if state == "answered" else None
    assert (record.trunk, record.answered_ms, record.ended_ms) == ("main", answered_ms, NOW + 5100)
    assert (found.hangup_code, found.hangup_cause, found.hangup_source) == (6000, 602, "Plivo")
    assert found.handle_event(USED_UP, NOW + 5200) == []


def test_a_call_that_has_arrived_goes_on():
    arrived, _ = Call.from_arrival(ev.CallArrived("ch", "c1", "r1", "A", "1", "2"), NOW)
    assert arrived.handle_event(USED_UP, NOW) == []
    assert not arrived.is_ending
