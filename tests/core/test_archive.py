"""Plays about the history: what is kept of calls, members and conferences that have ended."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.conferences.member import TALKS_AT_ONCE
from ari_conf.core.elements import Hangup, Play
from tests.core.stage import START, Stage, players, stay


def test_a_call_is_kept_with_its_times_and_its_end(stage: Stage):
    stage.call("ann", Play("hello"))
    stage.pass_time(3)
    stage.hang_up("ann")
    (kept,) = stage.all(do.ArchiveCall)
    assert (kept.call_uuid, kept.auth_id, kept.from_, kept.to) == ("call-ann", "A", "4930123", "100")
    assert (kept.initiated_ms, kept.answered_ms, kept.ended_ms) == (START, START, START + 3_000)
    assert (kept.status, kept.hangup_cause, kept.hangup_code, kept.hangup_source) == ("completed", 16, 4000, "Caller")


@pytest.mark.parametrize(
    "element, code, source",
    [
        (Hangup("busy"), 3010, "Answer XML"),
        (Hangup("rejected"), 3020, "Answer XML"),
        (Play("unheard"), 4010, "Answer XML"),
    ],
)
def test_who_ended_it(stage: Stage, element: Hangup | Play, code: int, source: str):
    stage.call("ann", element)
    if isinstance(element, Play):
        stage.finish("ann")
    (kept,) = stage.all(do.ArchiveCall)
    assert (kept.hangup_code, kept.hangup_source) == (code, source)


def test_a_placed_call_is_kept_with_its_parent(stage: Stage):
    stage.place("bob", parent_call_uuid="call-ann")
    stage.hang_up(stage.channel_of("bob"))
    (kept,) = stage.all(do.ArchiveCall)
    assert (kept.call_uuid, kept.parent_call_uuid, kept.trunk) == ("call-bob", "call-ann", "PJSIP/{name}@provider")


def test_a_caller_who_was_not_identified_is_kept_without_a_number(stage: Stage):
    stage.held = {do.IdentifyCall}
    stage.call("ann", Play("hello"))
    stage.hang_up("ann")
    (kept,) = stage.all(do.ArchiveCall)
    assert (kept.from_, kept.caller_name, kept.to) == ("", "", "100")


def test_a_conference_is_kept_with_all_who_were_in(stage: Stage):
    players(stage, "ann", "bob", end_conference_on_exit=False)
    stage.pass_time(10)
    stage.hang_up("bob")
    stage.pass_time(5)
    stage.call("bob2", stay())
    stage.pass_time(5)
    stage.hang_up("ann")
    stage.pass_time(1)
    assert not stage.all(do.ArchiveConference), "it goes on"
    stage.hang_up("bob2")
    stage.pass_time(60)
    (kept,) = stage.all(do.ArchiveConference)
    assert (kept.name, kept.started, kept.members, kept.end_reason) == ("standup", True, 3, "conference_ended")
    assert (kept.created_ms, kept.ended_ms) == (START, START + 21_000)
    members = stage.all(do.ArchiveMember)
    assert [(m.call_uuid, m.joined_ms - START, m.left_ms - START, m.exit_reason) for m in members] == [
        ("call-bob", 0, 10_000, "hangup"),
        ("call-ann", 0, 20_000, "hangup"),
        ("call-bob2", 15_000, 21_000, "hangup"),
    ]
    assert {(m.conference_id, m.from_, m.to) for m in members} == {(kept.conference_id, "4930123", "100")}
    assert {m.talk_ms for m in members} == {None}, "nothing has listened for talking"


def test_why_members_left_and_why_it_ended(stage: Stage):
    players(stage, "ann", end_conference_on_exit=True)
    players(stage, "bob", "cid")
    members = stage.conference().members  # type: ignore[union-attr]
    kicked = api.ForConference("A", "standup", api.Kick((max(members),)))
    stage.tell(ev.CommandReceived("c1", kicked, stage.now + 1_000))
    stage.hang_up("ann")
    stage.pass_time(60)
    reasons = {m.call_uuid: m.exit_reason for m in stage.all(do.ArchiveMember)}
    assert reasons == {"call-cid": "kick", "call-ann": "hangup", "call-bob": "host_left"}
    assert [c.end_reason for c in stage.all(do.ArchiveConference)] == ["host_left"]


def test_a_conference_whose_name_is_in_use_elsewhere_is_not_kept(stage: Stage):
    stage.names_elsewhere = {"standup"}
    stage.call("ann", stay(), Hangup())
    assert len(stage.all(do.ArchiveCall)) == 1
    assert not stage.all(do.ArchiveConference) and not stage.all(do.ArchiveMember)


def talk(stage: Stage, name: str, seconds: float) -> None:
    """Let somebody talk; Asterisk reports the end after half a second of silence."""
    stage.talk(name)
    stage.pass_time(seconds + 0.5)
    stage.fall_silent(name)


def test_talking_is_kept_where_something_listens_for_it(stage: Stage):
    players(stage, "ann", "bob", floor_event=True)
    stage.pass_time(1)
    talk(stage, "ann", 2)
    stage.pass_time(1)
    stage.talk("ann")
    stage.pass_time(3)
    stage.hang_up("ann")
    (kept,) = stage.all(do.ArchiveMember)
    assert [(start - START, end - START) for start, end in kept.talks] == [(1_000, 3_000), (4_500, 7_500)]
    assert kept.talk_ms == 5_000
    stage.hang_up("bob")
    assert stage.all(do.ArchiveMember)[-1].talk_ms == 0


def test_many_talks_are_handed_over_in_pieces(stage: Stage):
    players(stage, "ann", "bob", floor_event=True)
    for _ in range(2 * TALKS_AT_ONCE + 3):
        stage.pass_time(1)
        talk(stage, "ann", 1)
    pieces = stage.all(do.ArchiveTalks)
    assert [len(piece.talks) for piece in pieces] == [TALKS_AT_ONCE] * 2
    stage.hang_up("ann")
    (kept,) = stage.all(do.ArchiveMember)
    assert len(kept.talks) == 3 and kept.talk_ms == (2 * TALKS_AT_ONCE + 3) * 1_000
    talks = [talk for piece in pieces for talk in piece.talks] + [*kept.talks]
    assert talks == sorted(talks) and all(before[1] <= after[0] for before, after in pairwise(talks))


def test_what_is_said_while_muted_is_not_kept(stage: Stage):
    players(stage, "ann", "bob", floor_event=True)
    stage.talk("ann")
    stage.pass_time(2)
    member_id = min(stage.conference().members)  # type: ignore[union-attr]
    for number, on in enumerate((True, False)):
        mute = api.ForConference("A", "standup", api.Mute((member_id,), on))
        stage.tell(ev.CommandReceived(f"c{number}", mute, stage.now + 1_000))
        stage.pass_time(4)
    stage.fall_silent("ann")
    stage.hang_up("ann")
    (kept,) = stage.all(do.ArchiveMember)
    assert [(start - START, end - START) for start, end in kept.talks] == [(0, 2_000), (6_000, 9_500)]


def test_a_silence_that_is_reported_twice_is_one_talk(stage: Stage):
    players(stage, "ann", "bob", floor_event=True)
    talk(stage, "ann", 2)
    member = next(iter(stage.conference().members.values()))  # type: ignore[union-attr]
    member.talking, member.talking_at = True, START
    stage.fall_silent("ann")
    stage.hang_up("ann")
    assert stage.all(do.ArchiveMember)[0].talk_ms == 2_000
