"""Other processes read of calls and conferences what the server has written."""

from __future__ import annotations

from typing import get_args

import pytest
from structlog.testing import capture_logs

from ari_conf.core import commands as do
from ari_conf.core import events as ev
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.store.live_state import (
    CALLS_AT_ONCE,
    PRESENCES,
    CallRecord,
    ConferenceRecord,
    Presence,
    decode,
    read_calls,
)
from ari_conf.store.state_codec import encode
from tests.core.stage import Stage, stay


def test_each_state_of_a_member_has_a_presence():
    assert set(PRESENCES) == set(MemberState)
    assert set(PRESENCES.values()) == {None, *get_args(Presence)}


def test_the_records_are_what_the_engine_has():
    stage = Stage()
    stage.call("ann", stay(record=True, floor_event=True))
    stage.call("bob", stay(muted=True))
    stage.talk("ann")
    stage.tell(ev.CommandReceived("c1", do.ForConference("A", "standup", do.Lock(True)), stage.now + 1000))
    conference = stage.conference()
    assert conference is not None
    (recording,) = conference.recordings.values()
    record = decode(encode(conference), ConferenceRecord)
    assert record is not None and record.active_recording is not None
    assert (record.conference_uuid, record.auth_id, record.name) == (conference.conference_id, "A", "standup")
    assert (record.created_ms, record.started, record.locked, record.is_ending) == (
        conference.created_at,
        True,
        True,
        False,
    )
    assert (record.active_recording.recording_id, record.active_recording.started_ms) == (
        recording.recording_id,
        recording.started_at,
    )
    recording.stop(stage.now)
    stopped = decode(encode(conference), ConferenceRecord)
    assert stopped is not None and stopped.active_recording is None
    ann, bob = record.present_members
    assert record.floor_holder == ann.member_id == conference.floor
    assert ann.joined_ms == conference.members[ann.member_id].joined_at
    assert (ann.presence, ann.is_talking, ann.is_heard, bob.is_heard, bob.muted) == ("in", True, True, False, True)
    call = stage.engine.calls[ann.call_uuid]
    assert decode(encode(call), CallRecord) == CallRecord(call.from_, call.to, call.caller_name, "inbound")


def test_nobody_is_present_in_a_conference_that_is_ending():
    stage = Stage()
    stage.call("ann", stay())
    conference = stage.conference()
    assert conference is not None
    conference.ending = True
    record = decode(encode(conference), ConferenceRecord)
    assert record is not None and record.members and record.present_members == []


@pytest.mark.parametrize("text", [b"{", b"{}", b"[" * 100_000, b'{"from_":1,"to":"","caller_name":"","direction":""}'])
def test_a_record_that_can_not_be_read_is_logged_and_left_out(text: bytes):
    with capture_logs() as logs:
        assert decode(text, CallRecord) is None
    (line,) = logs
    assert (line["event"], line["of"], line["log_level"]) == ("state record unreadable", "Call", "warning")


async def test_calls_are_read_some_at_a_time():
    """A call may have a document of 100 KB."""
    asked: list[int] = []

    class Redis:
        async def hmget(self, _: str, some: list[str]) -> list[bytes | None]:
            asked.append(len(some))
            return [None, *[b'{"from_":"1","to":"2","caller_name":"","direction":"inbound"}'] * (len(some) - 1)]

    found = await read_calls(Redis(), "here", [f"u{n}" for n in range(CALLS_AT_ONCE + 3)])
    assert asked == [CALLS_AT_ONCE, 3]
    assert len(found) == CALLS_AT_ONCE + 1 and "u0" not in found and "u1" in found
