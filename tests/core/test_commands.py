"""The API's commands, as plays: what they do to a live conference, and what is replied."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ari_conf.core import commands as do
from ari_conf.core import effects
from ari_conf.core import events as ev
from ari_conf.core.bounds import MAX_SWITCH_OFFS
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.elements import Play, Speak
from ari_conf.core.engine import Engine
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.reconciliation.plan import effects_to_repeat, expectations, missed_events
from tests.core.copies import copied
from tests.core.stage import ACTION, START, Stage, players, stay, waiting

HELLO, AGAIN = Play("hello"), Play("again")


def api(
    stage: Stage, command: do.ConferenceCommand, name: str = "standup", auth: str = "A", late: bool = False
) -> dict:
    """Send a command; return the status and the body of the reply."""
    expires_at = stage.now + (0 if late else 5000)
    reported = stage.tell(
        ev.CommandReceived(f"command{len(stage.effects)}", do.ForConference(auth, name, command), expires_at)
    )
    (reply,) = [effect for effect in reported if isinstance(effect, effects.CommandReply)]
    return {"status": reply.status, **dict(reply.body)}


def member(stage: Stage, name: str):
    conference = next(iter(stage.engine.conferences.values()))
    return next(m for m in conference.members.values() if m.channel_id == name)


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    players(stage, "ann", "bob", "cid")
    return stage


# Mute, deaf.


def test_one_is_muted_and_heard_again(stage: Stage):
    assert api(stage, do.Mute((2,), True)) == {"status": 202, "message": "muted", "member_id": ("2",)}
    assert stage.hears("ann") == {"cid"}
    assert api(stage, do.Mute((2,), False)) == {"status": 204}
    assert stage.hears("ann") == {"bob", "cid"}


def test_several_and_all(stage: Stage):
    assert api(stage, do.Mute((1, 3, 1), True))["member_id"] == ("1", "3")
    assert stage.hears("cid") == {"bob"}
    assert api(stage, do.Mute(None, True))["member_id"] == ("1", "2", "3")
    assert stage.hears("ann") == stage.hears("cid") == set()


def test_the_reply_names_those_of_several_members_who_are_in(stage: Stage):
    assert api(stage, do.Deafen((2, 77), True)) == {"status": 202, "message": "deaf", "member_id": ("2",)}
    assert stage.hears("bob") == set()
    assert stage.hears("ann") == {"bob", "cid"}
    assert api(stage, do.Deafen((2,), False)) == {"status": 204}
    assert stage.hears("bob") == {"ann", "cid"}


def test_the_floor_is_free_when_its_holder_is_muted():
    stage = Stage()
    players(stage, "ann", "bob", floor_event=True)
    stage.talk("ann")
    api(stage, do.Mute((1,), True))
    stage.talk("bob")
    assert [c["ConferenceMemberID"] for c in stage.callbacks(ConferenceAction="floor")] == ["1", "2"]


def test_mute_and_deaf_end_with_the_stay(stage: Stage):
    stage.call("dan", stay(hangup_on_star=True), Speak("bye"))
    api(stage, do.Mute((4,), True))
    api(stage, do.Deafen((4,), True))
    stage.press("dan", "*")
    channel = stage.asterisk.channels["dan"]
    assert (channel.muted, channel.deaf, stage.hears("dan") != set()) == (False, False, True)


def test_member_muted_while_waiting_is_muted_from_the_start():
    stage = Stage()
    stage.call("ann", waiting())
    assert api(stage, do.Mute((1,), True))["status"] == 202
    stage.call("bob", stay())
    assert stage.hears("bob") == set()


# Out.


def test_a_kicked_caller_continues_with_the_next_element():
    stage = Stage()
    stage.call("ann", stay())
    stage.call("bob", stay(), Speak("goodbye"))
    assert api(stage, do.Kick((2,))) == {"status": 202, "message": "kicked", "member_id": ("2",)}
    assert stage.media("bob") == ["goodbye"]
    (reported,) = stage.callbacks(ConferenceAction="exit")
    assert (reported["ConferenceMemberID"], reported["ConferenceExitReason"]) == ("2", "kick")


def test_a_member_is_hung_up_and_their_action_is_requested():
    stage = Stage()
    stage.call("ann", stay())
    stage.call("bob", stay(action=ACTION), Speak("never"))
    assert api(stage, do.HangUpMembers((2,))) == {"status": 204}
    assert "bob" not in stage.asterisk.channels
    assert stage.media("bob") == []
    (reported,) = stage.callbacks(ConferenceAction="exit")
    assert reported["ConferenceExitReason"] == "api_hangup"
    assert [e.url for e in stage.all(effects.PostCallback)].count(ACTION) == 1


def test_all_are_hung_up_and_nothing_is_left():
    stage = Stage()
    players(stage, "ann", "bob", end_conference_on_exit=True)
    stage.call("cid", stay(), Speak("never"))
    assert api(stage, do.HangUpAll()) == {"status": 204}
    assert [c["ConferenceExitReason"] for c in stage.callbacks(ConferenceAction="exit")] == ["api_hangup"] * 3
    assert not stage.asterisk.channels and not stage.asterisk.bridges
    assert not stage.engine.conferences and not stage.engine.calls


def test_all_who_wait_for_the_start_are_hung_up():
    stage = Stage()
    stage.call("ann", waiting(stay_alone=False))
    stage.call("bob", waiting(), Speak("never"))
    api(stage, do.HangUpAll())
    assert [c["ConferenceExitReason"] for c in stage.callbacks(ConferenceAction="exit")] == ["api_hangup"] * 2
    assert not stage.asterisk.channels and not stage.engine.calls


# Play, Speak.


def test_a_member_alone_hears_a_private_playback(stage: Stage):
    reported = api(stage, do.PlayToMembers((2,), HELLO))
    assert reported == {"status": 202, "message": "play queued into conference", "member_id": ("2",)}
    assert "hello" in stage.media("bob")
    assert stage.media("ann") == stage.media(stage.bridge_id()) == []


def test_sounds_queue_one_after_another(stage: Stage):
    api(stage, do.PlayToMembers((2,), HELLO))
    api(stage, do.PlayToMembers((2,), Speak("word")))
    assert stage.media("bob") == ["hello"]
    stage.finish("bob")
    assert stage.media("bob") == ["hello", "word"]
    stage.finish("bob")
    assert member(stage, "bob").private_playback.queue == []


def test_stop_stops_what_is_played_and_what_is_queued_of_that_kind(stage: Stage):
    for sound in (HELLO, Speak("word"), AGAIN):
        api(stage, do.PlayToMembers(None, sound))
    assert api(stage, do.StopPlaying((1,), "Play")) == {"status": 204}
    assert stage.media("ann") == ["hello", "word"]
    api(stage, do.StopPlaying((1,), "Speak"))
    assert stage.asterisk.channels["ann"].playbacks == []
    assert stage.media("bob") == ["hello"]
    assert len(stage.asterisk.channels["bob"].playbacks) == 1


def test_a_sound_that_fails_is_a_problem_and_the_next_one_plays(stage: Stage):
    api(stage, do.PlayToMembers((1,), Play("broken")))
    api(stage, do.PlayToMembers((1,), HELLO))
    assert stage.media("ann") == ["hello"]
    assert [p.call_uuid for p in stage.all(effects.ReportProblem)] == ["call-ann"]


def test_a_wait_sound_gives_way_to_what_is_played():
    stage = Stage()
    stage.call("ann", waiting())
    assert stage.hears("ann") == {"music"}
    api(stage, do.PlayToMembers(None, HELLO))
    assert (stage.media("ann"), stage.asterisk.channels["ann"].music) == (["hello"], False)
    stage.finish("ann")
    assert stage.hears("ann") == {"music"}


def test_a_private_playback_restarts_for_a_member_who_joins():
    stage = Stage()
    stage.call("ann", waiting())
    api(stage, do.PlayToMembers(None, HELLO))
    stage.call("bob", stay())
    assert stage.media("ann") == ["hello", "hello"]
    assert len(stage.asterisk.channels["ann"].playbacks) == 1
    assert "bob" in stage.asterisk.mix("ann")


def test_a_private_playback_ends_with_the_membership(stage: Stage):
    api(stage, do.PlayToMembers((1,), HELLO))
    stage.call("dan", stay(), Speak("bye"))
    api(stage, do.PlayToMembers((4,), HELLO))
    api(stage, do.Kick((4,)))
    stage.hang_up("ann")
    assert stage.media("dan") == ["hello", "bye"]
    assert stage.hears("dan") & {p for p in stage.asterisk.playbacks if ".private." in p} == set()


def test_no_more_than_a_hundred_wait(stage: Stage):
    assert {api(stage, do.PlayToMembers((1,), HELLO))["status"] for _ in range(100)} == {202}
    assert api(stage, do.PlayToMembers(None, HELLO))["status"] == 409
    assert member(stage, "bob").private_playback.queue == []


def test_no_more_than_a_hundred_announcements_wait(stage: Stage):
    assert {api(stage, do.Announce(HELLO))["status"] for _ in range(100)} == {202}
    refused = api(stage, do.Announce(HELLO))
    assert refused == {
        "status": 409,
        "error": "100 announcements are already queued in this conference: stop them, or wait",
    }
    conference = stage.conference()
    assert conference is not None and len(conference.shared_playback.players) == 100
    stage.finish(conference.bridge_id)
    assert api(stage, do.Announce(HELLO))["status"] == 202, "one has ended"
    assert api(stage, do.StopAnnouncing())["status"] == 204
    assert conference.shared_playback.players == {} and api(stage, do.Announce(HELLO))["status"] == 202


def test_no_more_than_a_hundred_enter_sounds_wait_and_they_keep_no_announcement_waiting(stage: Stage):
    for n in range(110):
        stage.call(f"guest{n}", stay(enter_sound="beep:2"))
        stage.hang_up(f"guest{n}")
    conference = stage.conference()
    assert conference is not None and len(conference.shared_playback.players) == 100
    assert [text for _, text in stage.problems()] == [
        "100 enter and exit sounds are already queued: this sound is not played"
    ] * 10
    assert api(stage, do.Announce(HELLO))["status"] == 202


def test_a_sound_of_an_instant_that_is_played_to_a_member_again_and_again_goes_on(stage: Stage):
    api(stage, do.PlayToMembers((1,), Play("tick", loop=30)))
    api(stage, do.PlayToMembers((1,), HELLO))
    for _ in range(40):
        if stage.asterisk.channels["ann"].playbacks:
            stage.finish("ann")
        else:
            stage.pass_time(1)
    assert stage.media("ann").count("tick") == 30 and stage.media("ann")[-1] == "hello"


def test_recent_switch_offs_are_bounded(stage: Stage):
    for _ in range(2 * MAX_SWITCH_OFFS):
        api(stage, do.PlayToMembers((1,), HELLO))
        api(stage, do.StopPlaying((1,), "Play"))
    call = stage.call_of("ann")
    assert call is not None and len(call.recent_switch_offs) == MAX_SWITCH_OFFS
    assert call.recent_switch_offs[-1][1] == stage.all(effects.StopPlayback)[-1]


# Hold.


def test_held_one_hears_music_and_neither_hears_nor_is_heard(stage: Stage):
    assert api(stage, do.Hold((2,), True)) == {"status": 202, "message": "held", "member_id": ("2",)}
    assert stage.hears("bob") == {"music"}
    assert stage.hears("ann") == {"cid"}
    assert api(stage, do.Hold((2,), False)) == {"status": 204}
    assert stage.hears("bob") == {"ann", "cid"}
    assert stage.hears("ann") == {"bob", "cid"}
    assert not stage.callbacks(ConferenceAction="exit")


def test_held_with_a_sound_again_and_again(stage: Stage):
    api(stage, do.Hold((2,), True, "tune"))
    assert stage.media("bob") == ["tune"]
    stage.finish("bob")
    stage.pass_time(1)
    assert stage.media("bob") == ["tune", "tune"]
    api(stage, do.Hold((2,), True))
    assert stage.hears("bob") == {"music"}


def test_a_hold_sound_that_fails_is_the_default_music(stage: Stage):
    api(stage, do.Hold((2,), True, "broken"))
    assert stage.hears("bob") == {"music"}


def test_a_deaf_one_hears_the_music_and_is_deaf_again_after_it(stage: Stage):
    api(stage, do.Deafen((2,), True))
    api(stage, do.Hold((2,), True))
    assert not stage.asterisk.channels["bob"].deaf
    api(stage, do.Hold((2,), False))
    assert stage.asterisk.channels["bob"].deaf


def test_a_member_held_before_the_start_stays_out():
    stage = Stage()
    stage.call("ann", waiting())
    api(stage, do.Hold((1,), True))
    stage.call("bob", stay())
    assert stage.hears("ann") == {"music"}
    assert stage.hears("bob") == set()
    api(stage, do.Hold((1,), False))
    assert stage.hears("ann") == {"bob"}


def test_a_held_member_who_hangs_up_is_out(stage: Stage):
    api(stage, do.Hold((2,), True))
    stage.hang_up("bob")
    (reported,) = stage.callbacks(ConferenceAction="exit")
    assert (reported["ConferenceMemberID"], reported["ConferenceExitReason"]) == ("2", "hangup")


def test_a_held_one_goes_on_when_the_conference_ends():
    stage = Stage()
    stage.call("ann", stay(end_conference_on_exit=True))
    stage.call("bob", stay(), Speak("bye"))
    api(stage, do.Hold((2,), True))
    stage.hang_up("ann")
    assert stage.media("bob") == ["bye"]
    assert not stage.asterisk.channels["bob"].music


def test_hold_and_unhold_before_the_member_is_out_of_the_mix(stage: Stage):
    stage.held = {effects.RemoveChannel}
    api(stage, do.Hold((2,), True))
    api(stage, do.Hold((2,), False))
    stage.let_go()
    assert stage.hears("bob") == {"ann", "cid"}


def test_digits_of_send_digits_are_sent_once():
    stage = Stage()
    stage.call("ann", stay())
    stage.call("bob", stay(send_digits="5"))
    stage.pass_time(1)
    api(stage, do.Hold((2,), True))
    api(stage, do.Hold((2,), False))
    stage.pass_time(1)
    assert stage.asterisk.channels["ann"].heard_digits == "5"


# The whole conference.


def test_an_announcement_is_one_playback_for_all(stage: Stage):
    assert api(stage, do.Announce(HELLO)) == {"status": 202, "message": "announcement queued into conference"}
    assert stage.media(stage.bridge_id()) == ["hello"]
    assert api(stage, do.StopAnnouncing()) == {"status": 204}
    assert not stage.asterisk.playbacks


def test_before_the_start_there_is_nobody_to_announce_to():
    stage = Stage()
    stage.call("ann", waiting())
    assert api(stage, do.Announce(HELLO))["status"] == 409


def test_a_locked_conference_lets_nobody_in_until_it_is_unlocked(stage: Stage):
    assert api(stage, do.Lock(True)) == {"status": 202, "message": "locked"}
    stage.call("dan", stay(action=ACTION), Speak("next"))
    assert stage.media("dan") == ["next"]
    assert len(stage.callbacks(ConferenceAction="enter")) == 3
    assert ACTION not in [e.url for e in stage.all(effects.PostCallback)]
    assert api(stage, do.Lock(False)) == {"status": 204}
    stage.call("eve", stay())
    assert stage.hears("eve") == {"ann", "bob", "cid"}


# Refused.


@pytest.mark.parametrize(("name", "auth"), [("other", "A"), ("standup", "B"), ("Standup", "A"), ("", "A")])
def test_no_other_conference_is_reached(stage: Stage, name: str, auth: str):
    assert api(stage, do.HangUpAll(), name, auth) == {"status": 404, "error": "conference not found"}
    assert len(stage.asterisk.channels) == 3


@pytest.mark.parametrize("command", [do.Mute((9,), True), do.Kick((0, 9)), do.Hold((), True)])
def test_nobody_of_those_is_in(stage: Stage, command: do.ConferenceCommand):
    assert api(stage, command) == {"status": 404, "error": "member not found"}


# A call.


def call_is_hung_up(stage: Stage, name: str, auth: str = "A") -> int:
    """Send the command; return the status of the reply."""
    addressed = do.ForCall(auth, f"call-{name}", do.HangUpCall())
    reported = stage.tell(ev.CommandReceived("c1", addressed, stage.now + 5000))
    (reply,) = [effect for effect in reported if isinstance(effect, effects.CommandReply)]
    return reply.status


def test_a_call_is_hung_up_in_any_state_and_the_exit_callback_has_the_reason(stage: Stage):
    stage.call("dan", Play("song"))
    assert call_is_hung_up(stage, "bob") == call_is_hung_up(stage, "dan") == 204
    assert set(stage.asterisk.channels) == {"ann", "cid"} and stage.callback_texts()[-1] == "exit bob api_hangup"


def test_a_call_of_another_account_or_of_nobody_or_that_ends_is_not_found(stage: Stage):
    assert call_is_hung_up(stage, "bob", auth="B") == call_is_hung_up(stage, "eve") == 404
    stage.held = {effects.HangUp}
    assert [call_is_hung_up(stage, "bob") for _ in range(2)] == [204, 404]
    assert "bob" in stage.asterisk.channels and stage.hears("ann") == {"cid"}


# All calls of an account.


def calls_are_hung_up(stage: Stage, at_most: int, auth: str = "A") -> dict[str, Any]:
    """Send the command; return the status and the body of the reply."""
    addressed = do.ForAccount(auth, do.HangUpCalls(at_most))
    reported = stage.tell(ev.CommandReceived(f"c{len(stage.effects)}", addressed, stage.now + 5000))
    (reply,) = [effect for effect in reported if isinstance(effect, effects.CommandReply)]
    return {"status": reply.status, **dict(reply.body)}


def test_calls_of_an_account_are_hung_up_conference_by_conference_in_batches(stage: Stage):
    stage.account = {"hangup_url": "http://hangup.example/"}
    players(stage, "dan", "eve", name="other")
    for name in ("fay", "gus", "hal"):
        stage.call(name, Play("song"))
    stage.call("joe", Play("song"), auth="B")
    stage.call("kim", stay(), auth="B")
    assert calls_are_hung_up(stage, 2) == {"status": 202, "left": "5"}, "a conference ends as a whole"
    assert set(stage.asterisk.channels) == {"dan", "eve", "fay", "gus", "hal", "joe", "kim"}
    assert [text for text in stage.callback_texts() if text.startswith("exit")] == [
        f"exit {name} api_hangup" for name in ("ann", "bob", "cid")
    ]
    assert calls_are_hung_up(stage, 4) == {"status": 202, "left": "1"}
    assert calls_are_hung_up(stage, 4) == {"status": 202, "left": "0"}
    assert set(stage.asterisk.channels) == {"joe", "kim"} and stage.hears("kim") is not None
    assert stage.conference() is None and stage.conference(auth="B") is not None
    assert calls_are_hung_up(stage, 4) == {"status": 202, "left": "0"}
    assert stage.hangup_request("fay")["HangupCauseCode"] == "4000"
    assert stage.hangup_request("fay")["HangupCause"] == "NORMAL_CLEARING"


def test_calls_of_an_account_are_hung_up_in_any_state(stage: Stage):
    stage.held = {effects.ClaimName, effects.FetchDocument, effects.IdentifyCall, effects.HangUp}
    stage.call("dan", stay("unclaimed"))
    assert calls_are_hung_up(stage, 100) == {"status": 202, "left": "0"}
    assert calls_are_hung_up(stage, 100) == {"status": 202, "left": "0"}, "those that end are not counted"
    stage.let_go()
    assert not stage.asterisk.channels and not stage.engine.calls and not stage.engine.conferences


def test_an_unclaimed_conference_ends_with_its_last_caller():
    stage = Stage()
    stage.held = {effects.ClaimName}
    stage.call("dan", stay())
    assert calls_are_hung_up(stage, 1) == {"status": 202, "left": "0"}
    stage.let_go()
    assert not stage.asterisk.channels and not stage.engine.conferences


def test_too_late_it_is_not_done_any_more(stage: Stage):
    assert api(stage, do.HangUpAll(), late=True)["status"] == 503
    assert len(stage.asterisk.channels) == 3


def test_an_ending_conference_is_not_found(stage: Stage):
    stage.held = {effects.DestroyBridge}
    stage.hang_up("ann", "bob", "cid")
    assert api(stage, do.Lock(True))["status"] == 404


@pytest.mark.parametrize(
    "command",
    [do.Mute(None, True), do.Hold((1, 2), True, "tune"), do.PlayToMembers((1,), Speak("a", "MAN")), do.HangUpAll()],
)
def test_a_command_stands_its_way_through_redis(command: do.ConferenceCommand):
    assert msgspec.json.decode(msgspec.json.encode(command), type=do.ConferenceCommand) == command


def test_the_state_with_all_of_it_can_be_written_down(stage: Stage):
    for command in (do.Mute((1,), True), do.Hold((2,), True, "tune"), do.PlayToMembers(None, HELLO), do.Lock(True)):
        api(stage, command)
    (conference,) = stage.engine.conferences.values()
    assert copied(conference) == conference


def test_a_directory_without_conferences_answers_too():
    reported = Engine(lambda: "id").handle_event(
        ev.CommandReceived("c", do.ForConference("A", "x", do.Lock(True)), START + 1), START
    )
    assert reported == [effects.CommandReply("c", 404, (("error", "conference not found"),))]


# Record.


def stored(stage: Stage) -> effects.StoreRecording:
    (found,) = stage.all(effects.StoreRecording)
    return found


def test_a_conference_is_recorded_until_stop_recording(stage: Stage):
    reported = api(stage, do.Record("r1", "wav", callback_url="http://callback.example/record"))
    assert (reported["status"], reported["message"], reported["recording_id"]) == (
        202,
        "conference recording started",
        "r1",
    )
    assert reported["url"] == "https://conference.example/v1/Account/A/Recording/r1.wav"
    assert stage.asterisk.recordings == {"r1": stage.bridge_id()}
    assert api(stage, do.Record("r2"))["status"] == 409
    stage.pass_time(5)
    assert api(stage, do.StopRecording()) == {"status": 204}
    assert not stage.asterisk.recordings
    assert (stored(stage).recording_id, stored(stage).file_format, stored(stage).call_uuid) == ("r1", "wav", "")
    assert stored(stage).end_ms - stored(stage).start_ms == 5000
    callback = stored(stage).callback
    assert callback is not None
    assert dict(callback.params) == {
        "api_id": dict(callback.params)["api_id"],
        "record_url": reported["url"],
        "recording_id": "r1",
        "conference_name": "standup",
        "recording_start_ms": str(stored(stage).start_ms),
        "recording_end_ms": str(stored(stage).end_ms),
    }
    assert api(stage, do.StopRecording())["status"] == 404


@pytest.mark.parametrize("language", ["de", None])
def test_the_language_in_which_a_recording_is_transcribed(stage: Stage, language: str | None):
    api(stage, do.Record("r1", transcription_type="auto", transcription_language=language))
    api(stage, do.StopRecording())
    assert (stored(stage).transcribe, stored(stage).transcription_language) == (True, language)


def test_a_recording_follows_another(stage: Stage):
    for recording_id in ("r1", "r2"):
        assert api(stage, do.Record(recording_id))["status"] == 202
        assert api(stage, do.StopRecording())["status"] == 204
    assert [s.recording_id for s in stage.all(effects.StoreRecording)] == ["r1", "r2"]
    stage.hang_up("ann", "bob", "cid")
    assert not stage.engine.conferences


def test_recordings_are_kept_by_id_and_what_is_handed_over_until_the_next_one(stage: Stage):
    conference = stage.conference()
    assert conference is not None and conference.recordings == {}
    for recording_id in ("r1", "r2", "r3"):
        api(stage, do.Record(recording_id))
        assert list(conference.recordings) == [recording_id] and conference.recording_to_hand_over is not None
        api(stage, do.StopRecording())
        newest = conference.newest_recording
        assert newest is not None and newest.recording_id == recording_id and newest.handed_over
        assert conference.recording_to_hand_over is None


def test_a_recording_ends_after_its_time(stage: Stage):
    api(stage, do.Record("r1", time_limit=10))
    stage.pass_time(9)
    assert stage.asterisk.recordings
    stage.pass_time(1)
    assert not stage.asterisk.recordings
    assert stored(stage).end_ms - stored(stage).start_ms == 10_000


def test_a_recording_ends_with_the_conference(stage: Stage):
    api(stage, do.Record("r1"))
    stage.hang_up("ann", "bob", "cid")
    assert stored(stage).recording_id == "r1"
    assert not stage.engine.conferences and not stage.asterisk.bridges


def test_stopped_recording_of_an_element_stays_stopped():
    stage = Stage()
    players(stage, "ann", "bob", record=True)
    assert api(stage, do.Record("r1"))["status"] == 409
    assert api(stage, do.StopRecording()) == {"status": 204}
    stage.call("cid", stay(record=True))
    assert not stage.asterisk.recordings


def test_member_who_joins_after_the_apis_recording_starts_their_own(stage: Stage):
    api(stage, do.Record("r1"))
    stage.call("dan", stay(record=True))
    stage.pass_time(1)
    api(stage, do.StopRecording())
    assert not stage.asterisk.recordings
    stage.pass_time(1)
    stage.call("eve", stay(record=True))
    assert len(stage.asterisk.recordings) == 1


def test_there_is_nothing_to_record_before_the_start():
    stage = Stage()
    stage.call("ann", waiting())
    assert api(stage, do.Record("r1"))["status"] == 409


@pytest.mark.parametrize("command", [do.Kick((1,)), do.Hold((1,), True)])
def test_a_sound_is_stopped_before_the_channel_is_moved(stage: Stage, command: do.ConferenceCommand):
    """Asterisk would move the member only after the sound had ended."""
    api(stage, do.PlayToMembers((1,), HELLO))
    before = len(stage.effects)
    api(stage, command)
    kinds = [type(effect) for effect in stage.effects[before:]]
    assert kinds.index(effects.StopPlayback) < kinds.index(effects.RemoveChannel)


# After a crash.


def what_is_there(stage: Stage) -> AsteriskState:
    asterisk = stage.asterisk
    bridges = {b.bridge_id: frozenset(b.channels) for b in asterisk.bridges.values()}
    return AsteriskState(
        {c.channel_id: c.up for c in asterisk.channels.values()}, bridges, frozenset(asterisk.playbacks)
    )


def test_the_next_process_completes_a_hold(stage: Stage):
    stage.held = {effects.RemoveChannel}
    api(stage, do.Hold((2,), True))
    lost = stage.give_up()
    assert effects_to_repeat(stage.engine, what_is_there(stage)).count(lost) == 1
    stage._obey(lost)
    stage.go_on()
    assert stage.hears("bob") == {"music"}


def test_a_member_removed_in_the_meantime_is_held(stage: Stage):
    stage.held = {effects.RemoveChannel}
    api(stage, do.Hold((2,), True))
    lost = stage.give_up()
    stage.asterisk._tell = lambda *_: None  # the process is dead when it happens
    stage.asterisk.obey(lost)
    there = what_is_there(stage)
    for event in missed_events(expectations(stage.engine), there):
        reported = stage.engine.handle_event(event, stage.now)
    assert effects.StartMusic("bob") in reported
    assert member(stage, "bob").state is MemberState.ON_HOLD


def test_a_held_one_is_not_deafened_again_by_the_next_process(stage: Stage):
    for command in (do.Deafen((2,), True), do.Deafen((3,), True), do.Mute((2,), True), do.Hold((2,), True)):
        api(stage, command)
    done = effects_to_repeat(stage.engine, what_is_there(stage))
    assert effects.MuteChannel("bob", True) in done
    assert [e.channel_id for e in done if isinstance(e, effects.DeafenChannel) and e.deaf] == ["cid"]


@pytest.mark.parametrize("command", [do.Mute, do.Deafen])
def test_the_next_process_completes_unmute_and_undeafen(stage: Stage, command: Any):
    api(stage, command((2,), True))
    stage.held = {effects.MuteChannel, effects.DeafenChannel}
    api(stage, command((2,), False))
    lost = stage.give_up()
    assert effects_to_repeat(stage.engine, what_is_there(stage)).count(lost) == 1


def test_a_sound_that_ended_meanwhile_makes_way_for_the_next(stage: Stage):
    api(stage, do.PlayToMembers((1,), HELLO))
    api(stage, do.PlayToMembers((1,), AGAIN))
    there = AsteriskState(what_is_there(stage).channels, what_is_there(stage).bridges)
    for event in missed_events(expectations(stage.engine), there):
        stage.tell(event)
    assert stage.media("ann") == ["hello", "again"]
