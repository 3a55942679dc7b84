"""The Conference element, sentence by sentence."""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Conference, GetDigits, Hangup, Play, Speak, Wait
from tests.core.stage import ACTION, CALLBACK, MUSIC, START, Stage


def stay(name: str = "standup", **attributes: Any) -> Conference:
    return Conference(name, **{"callback_url": CALLBACK, **attributes})


def waiting(**attributes: Any) -> Conference:
    return stay(start_conference_on_enter=False, **attributes)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def players(stage: Stage, *names: str, **attributes: Any) -> None:
    for name in names:
        stage.call(name, stay(**attributes))


# Names.


def test_a_name_belongs_to_one_account(stage: Stage) -> None:
    """ "the same name in two accounts is two conferences" """
    stage.call("ann", stay(), auth="A")
    stage.call("bob", stay(), auth="B")
    assert stage.conference_id(auth="A") != stage.conference_id(auth="B")
    assert stage.hears("ann") == set()


def test_names_are_case_sensitive(stage: Stage) -> None:
    stage.call("ann", stay("standup"))
    stage.call("bob", stay("Standup"))
    assert len(stage.directory.conferences) == 2


def test_two_meet_under_one_name(stage: Stage) -> None:
    players(stage, "ann", "bob")
    assert stage.hears("ann") == {"bob"}
    assert stage.hears("bob") == {"ann"}


# Joining.


def test_two_callers_at_once_meet_in_one_conference(stage: Stage) -> None:
    """ "Creating is atomic: two callers at once meet in one conference." """
    stage.held = {do.ClaimName}
    players(stage, "ann", "bob")
    assert len(stage.waiting) == 1
    stage.let_go()
    assert stage.hears("ann") == {"bob"}
    assert len(stage.all(do.CreateBridge)) == 1


def test_one_that_is_ending_is_not_live(stage: Stage) -> None:
    """ "a caller who arrives then gets a new one, with a new UUID" """
    stage.held = {do.DestroyBridge}
    players(stage, "ann")
    first = stage.conference_id()
    stage.hang_up("ann")
    assert first in stage.directory.conferences
    players(stage, "bob")
    assert stage.conference_id() != first
    stage.let_go()
    assert list(stage.directory.conferences) == [stage.conference_id()]


def test_during_the_end_with_members_still_inside_a_newcomer_meets_none_of_them(stage: Stage) -> None:
    stage.call("host", stay(end_conference_on_exit=True), Wait(100))
    stage.call("ann", stay(), Wait(100))
    stage.held = {do.RemoveChannel}
    stage.hang_up("host")
    stage.call("bob", stay())
    assert stage.hears("bob") == set()
    stage.let_go()
    assert stage.told()[-1] == "exit ann host_left"
    assert stage.conference() is not None


def test_an_id_is_never_reused(stage: Stage) -> None:
    """ "create one with a fresh UUID (never reuse an id)" """
    ids = set()
    for name in ("ann", "bob", "cid"):
        players(stage, name)
        ids.add(stage.conference_id())
        stage.hang_up(name)
    assert len(ids) == 3


@pytest.mark.parametrize("most", [1, 2, 20])
def test_full_skips_the_element_and_its_action(stage: Stage, most: int) -> None:
    """ "Full (maxMembers)? The element and its action are skipped; the next element runs. No callback." """
    inside = [f"m{n}" for n in range(most)]
    players(stage, *inside, max_members=most)
    stage.call("late", stay(action=ACTION, max_members=20), Speak("sorry"))
    assert len(stage.callbacks()) == most
    assert stage.actions() == []
    assert stage.media("late") == ["sorry"]


def test_max_members_is_fixed_by_the_first_member(stage: Stage) -> None:
    """ "set by the first member, fixed afterwards" """
    stage.call("ann", stay(max_members=2))
    stage.call("bob", stay(max_members=20))
    stage.call("cid", stay(max_members=20))
    stage.hang_up("ann")
    stage.call("dan", stay(max_members=1))
    stage.call("eve", stay(max_members=20))
    assert stage.told() == ["enter ann", "enter bob", "exit ann hangup", "enter dan"]


def test_one_on_his_way_out_is_a_member_until_he_is_out(stage: Stage) -> None:
    stage.call("ann", stay(max_members=1, hangup_on_star=True), Wait(100))
    stage.held = {do.RemoveChannel}
    stage.press("ann", "*")
    stage.call("bob", stay(), Wait(100))
    assert stage.told() == ["enter ann"]


def test_a_full_conference_does_not_answer_the_call(stage: Stage) -> None:
    players(stage, "ann", max_members=1)
    stage.call("bob", stay(), Hangup(reason="busy"))
    assert do.Answer("bob") not in stage.effects
    assert do.HangUp("bob", "busy") in stage.effects


def test_joining_answers_the_call(stage: Stage) -> None:
    """ "Answer the call if it is not answered." """
    players(stage, "ann")
    assert [e for e in stage.effects if isinstance(e, do.Answer | do.AddChannel)][0] == do.Answer("ann")
    stage.call("bob", stay(), answered=True)
    assert do.Answer("bob") not in stage.effects


def test_member_ids_come_from_one_counter(stage: Stage) -> None:
    """ "a small integer, from a counter that all conferences share" """
    stage.call("ann", stay("one"))
    stage.call("bob", stay("two"))
    stage.call("cid", stay("one"))
    assert [c["ConferenceMemberID"] for c in stage.callbacks()] == ["1", "2", "3"]


def test_another_process_holds_the_name(stage: Stage) -> None:
    stage.names_elsewhere = {"standup"}
    stage.call("ann", stay(action=ACTION), Speak("sorry"))
    assert stage.media("ann") == ["sorry"]
    assert stage.callbacks() == stage.actions() == []
    assert "standup" in stage.problems()[0][1]
    assert not stage.directory.conferences


# Waiting for the start.


def test_until_the_start_nobody_hears_anybody(stage: Stage) -> None:
    """ "each member hears his own waitSound, or the default music-on-hold class if he has none" """
    stage.sounds[MUSIC] = (Play("http://media.example/jazz.mp3"),)
    stage.call("ann", waiting())
    stage.call("bob", waiting(wait_sound=MUSIC))
    assert stage.hears("ann") == {"music"}
    assert stage.media("bob") == ["http://media.example/jazz.mp3"]
    assert stage.all(do.AddChannel) == []
    assert stage.told() == ["enter ann", "enter bob"]


def test_anothers_coming_and_going_does_not_restart_the_music(stage: Stage) -> None:
    """ "one member's music never reaches another, and another's coming or going does not restart it" """
    stage.sounds[MUSIC] = (Play("http://media.example/jazz.mp3"),)
    stage.call("ann", waiting())
    stage.call("bob", waiting(wait_sound=MUSIC))
    so_far = [e for e in stage.effects if isinstance(e, do.StartMusic | do.PlayMedia | do.StopMusic | do.StopPlayback)]
    stage.call("cid", waiting(enter_sound="beep:1", exit_sound="beep:1"))
    stage.hang_up("cid")
    again = [e for e in stage.effects if isinstance(e, do.StartMusic | do.PlayMedia | do.StopMusic | do.StopPlayback)]
    assert [e for e in again if "cid" not in repr(e)] == so_far


def test_the_first_who_may_starts_it_for_good(stage: Stage) -> None:
    """ "it stays started until it ends, also if that member leaves" """
    stage.call("ann", waiting())
    stage.call("bob", waiting())
    stage.call("host", stay())
    assert stage.hears("ann") == {"bob", "host"}
    stage.hang_up("host")
    assert stage.hears("ann") == {"bob"}
    stage.call("cid", waiting())
    assert stage.hears("cid") == {"ann", "bob"}


def test_muted_by_waiting_is_not_muted(stage: Stage) -> None:
    """ "at the start a member can speak unless his `muted` is true" """
    stage.call("ann", waiting())
    stage.call("bob", waiting(muted=True))
    stage.call("host", stay())
    assert stage.hears("host") == {"ann"}
    assert stage.hears("bob") == {"ann", "host"}


# muted.


def test_a_muted_member_still_hears(stage: Stage) -> None:
    """ "the member joins muted; still hears" """
    stage.call("ann", stay(muted=True))
    stage.call("bob", stay())
    assert stage.hears("bob") == set()
    assert stage.hears("ann") == {"bob"}


def test_he_is_muted_before_he_can_be_heard_and_unmuted_after_his_stay(stage: Stage) -> None:
    stage.call("ann", stay(muted=True, hangup_on_star=True), Wait(9))
    about = [e for e in stage.effects if isinstance(e, do.MuteChannel | do.AddChannel)]
    assert about == [do.MuteChannel("ann", True), do.AddChannel("ann", stage.conference_id())]
    stage.press("ann", "*")
    assert not stage.asterisk.channels["ann"].muted


# Alone after the start.


def test_alone_he_hears_his_wait_sound_or_silence(stage: Stage) -> None:
    """ "A lone member hears his waitSound (none: silence)." """
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", stay())
    assert stage.hears("ann") == set()
    stage.call("bob", stay("other", wait_sound=MUSIC))
    assert stage.media("bob") == ["jazz"] and len(stage.hears("bob")) == 1


def test_it_stops_the_instant_that_a_second_enters_and_starts_again(stage: Stage) -> None:
    """ "It stops the instant that a second member enters, and starts again if he is alone again." """
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", stay(wait_sound=MUSIC))
    stage.held = {do.AddChannel}
    stage.call("bob", stay())
    assert stage.hears("ann") == set(), "before he is in the bridge"
    stage.let_go()
    assert stage.hears("ann") == {"bob"}
    stage.hang_up("bob")
    assert stage.media("ann") == ["jazz", "jazz"] and len(stage.hears("ann")) == 1
    assert len(stage.all(do.FetchSounds)) == 1


def test_the_default_music_is_for_before_the_start_alone(stage: Stage) -> None:
    stage.call("ann", waiting())
    stage.call("host", stay())
    stage.hang_up("host")
    assert stage.hears("ann") == set()


# enterSound, exitSound.


@pytest.mark.parametrize("sound", ["beep:1", "beep:2", "http://sounds.example/gong"])
def test_the_enter_sound_is_played_to_the_whole_conference(stage: Stage, sound: str) -> None:
    """ "played to the whole conference when this member enters" """
    stage.sounds[sound] = (Play("gong"),)
    stage.call("ann", stay())
    stage.call("bob", stay(enter_sound=sound))
    assert stage.media(stage.conference_id()) == ["gong" if sound.startswith("http") else sound]


@pytest.mark.parametrize("sound", ["beep:1", "beep:2", "http://sounds.example/gong"])
def test_the_exit_sound_is_played_to_those_who_remain(stage: Stage, sound: str) -> None:
    """ "played to those who remain when this member leaves"; "the exit sound is ready when he leaves" """
    stage.sounds[sound] = (Play("gong"),)
    stage.call("ann", stay())
    stage.call("bob", stay(exit_sound=sound))
    assert len(stage.all(do.FetchSounds)) == sound.startswith("http")
    stage.hang_up("bob")
    assert stage.media(stage.conference_id()) == ["gong" if sound.startswith("http") else sound]
    assert len(stage.all(do.FetchSounds)) == sound.startswith("http")


def test_no_sound_is_the_default(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.hang_up("bob")
    assert stage.all(do.PlayMedia) == stage.all(do.PrepareSound) == []


def test_they_play_to_a_started_conference(stage: Stage) -> None:
    """ "(decided: not while waiting)" """
    stage.call("ann", waiting(enter_sound="beep:1", exit_sound="beep:1"))
    stage.call("bob", waiting(enter_sound="beep:1", exit_sound="beep:1"))
    stage.hang_up("bob")
    stage.call("host", stay(enter_sound="beep:2"))
    assert stage.media(stage.conference_id()) == ["beep:2"]


def test_joining_never_waits_for_the_sounds(stage: Stage) -> None:
    """ "URLs are fetched while the member joins, so that joining never waits for them" """
    stage.held = {do.FetchSounds}
    stage.sounds[MUSIC] = (Play("gong"),)
    stage.call("ann", stay())
    stage.call("bob", stay(enter_sound=MUSIC))
    assert stage.hears("ann") == {"bob"}
    stage.let_go()
    assert stage.media(stage.conference_id()) == ["gong"]


def test_he_hangs_up_while_his_enter_sound_plays(stage: Stage) -> None:
    players(stage, "ann")
    stage.call("bob", stay(enter_sound="beep:2", exit_sound="beep:1"))
    stage.hang_up("bob")
    stage.finish(stage.conference_id())
    stage.hang_up("ann")
    stage.assert_nothing_is_left()


def test_who_leaves_without_hanging_up_does_not_hear_his_exit_sound(stage: Stage) -> None:
    stage.call("ann", stay())
    stage.call("bob", stay(exit_sound="beep:1", hangup_on_star=True), Wait(9))
    stage.press("bob", "*")
    removed = stage.effects.index(do.RemoveChannel("bob", stage.conference_id()))
    (sound,) = [n for n, e in enumerate(stage.effects) if isinstance(e, do.PlayMedia)]
    assert removed < sound
    assert stage.hears("bob") == set()


# endConferenceOnExit, stayAlone.


def test_end_conference_on_exit(stage: Stage) -> None:
    """ "when this member leaves, the conference ends for everybody" ; "they are not hung up" """
    stage.call("host", stay(end_conference_on_exit=True))
    stage.call("ann", stay(), Speak("bye"))
    stage.call("bob", stay(action=ACTION))
    stage.documents[ACTION] = (Speak("action"),)
    stage.hang_up("host")
    assert stage.told()[3:] == ["exit host hangup", "exit ann host_left", "exit bob host_left"]
    assert stage.media("ann") == ["bye"] and stage.media("bob") == ["action"]
    assert not stage.directory.conferences


def test_without_it_the_others_stay(stage: Stage) -> None:
    players(stage, "host", "ann", "bob")
    stage.hang_up("host")
    assert stage.hears("ann") == {"bob"}


def test_it_ends_those_who_wait_as_well(stage: Stage) -> None:
    stage.call("ann", waiting())
    stage.call("host", waiting(end_conference_on_exit=True))
    stage.hang_up("host")
    assert stage.told()[-1] == "exit ann host_left"


def test_stay_alone_false_ends_it_once_one_is_left(stage: Stage) -> None:
    """ "false: the conference ends once a member is left alone" """
    stage.call("ann", stay(stay_alone=False), Wait(9))
    assert stage.conference() is not None, "nobody has left him yet"
    players(stage, "bob", "cid")
    stage.hang_up("cid")
    assert stage.hears("ann") == {"bob"}
    stage.hang_up("bob")
    assert stage.told()[-1] == "exit ann left_alone"
    assert not stage.directory.conferences


def test_once_false_it_stays_false(stage: Stage) -> None:
    """ "Once false it stays false" """
    stage.call("ann", stay())
    stage.call("bob", stay(stay_alone=False))
    stage.call("cid", stay())
    stage.hang_up("bob")
    stage.hang_up("cid")
    assert stage.told()[-1] == "exit ann left_alone"


def test_stay_alone_is_the_default(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.hang_up("bob")
    assert stage.conference() is not None


@pytest.mark.parametrize("stay_alone", [True, False])
def test_two_who_leave_in_the_same_instant(stage: Stage, stay_alone: bool) -> None:
    players(stage, "ann", "bob", stay_alone=stay_alone)
    stage.asterisk.hang_up("ann")
    stage.asterisk.hang_up("bob")
    stage.go_on()
    assert [t.split()[:2] for t in stage.told()[2:]] == [["exit", "ann"], ["exit", "bob"]]
    assert [c["ConferenceLastMember"] for c in stage.callbacks(ConferenceAction="exit")] == ["false", "true"]
    stage.assert_nothing_is_left()


# record.


def test_one_recording_from_the_start_with_a_member_whose_record_is_true(stage: Stage) -> None:
    """ "It begins when the conference has started and a member whose `record` is true is in" """
    stage.call("ann", waiting(record=True))
    assert stage.all(do.StartRecording) == []
    stage.call("host", stay())
    assert [e.bridge_id for e in stage.all(do.StartRecording)] == [stage.conference_id()]
    stage.call("bob", stay(record=True))
    assert len(stage.all(do.StartRecording)) == 1


def test_not_recorded_by_default(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.hang_up("ann", "bob")
    assert stage.all(do.StartRecording) == []
    assert "RecordUrl" not in stage.callbacks()[-1]


def test_it_ends_with_the_conference(stage: Stage) -> None:
    """ "It ends with the conference." "recording stopped, bridge destroyed" """
    stage.call("ann", stay(record=True))
    stage.call("bob", stay())
    conference_id = stage.conference_id()
    stage.hang_up("ann")
    assert stage.asterisk.recordings
    stage.held = {do.StopRecording}
    stage.hang_up("bob")
    assert do.DestroyBridge(conference_id) not in stage.effects, "first the recording is stopped"
    stage.let_go()
    assert stage.effects[-1] == do.DestroyBridge(conference_id)
    stage.assert_nothing_is_left()


def test_a_recording_of_which_asterisk_never_says_that_it_stopped(stage: Stage) -> None:
    stage.call("ann", stay(record=True))
    conference_id = stage.conference_id()
    stage.held = {do.StopRecording}
    stage.hang_up("ann")
    stage.pass_time(4.999)
    assert do.DestroyBridge(conference_id) not in stage.effects
    stage.pass_time(0.001)
    assert do.DestroyBridge(conference_id) in stage.effects
    stage.let_go()
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("form", ["mp3", "wav"])
def test_others_with_record_get_its_url_too(stage: Stage, form: str) -> None:
    """ "Others' record=true changes nothing, but they get RecordUrl and RecordingID in their action request too." """
    star: dict[str, Any] = {"hangup_on_star": True, "action": ACTION, "redirect": False}
    stage.call("ann", stay(record=True, record_file_format=form, **star), Wait(99))
    stage.call("bob", stay(record=True, record_file_format="mp3" if form == "wav" else "wav", **star), Wait(99))
    stage.call("cid", stay(**star), Wait(99))
    (recording,) = stage.all(do.StartRecording)
    for name in ("cid", "bob", "ann"):
        stage.press(name, "*")
    url = f"https://conference.example/v1/Account/A/Recording/{recording.recording_id}.{form}"
    for name in ("ann", "bob"):
        assert stage.action_of(name)["RecordUrl"] == url
        assert stage.action_of(name)["RecordingID"] == recording.recording_id
    assert not {"RecordUrl", "RecordingID"} & stage.action_of("cid").keys()


def test_before_the_recording_began_there_is_no_url(stage: Stage) -> None:
    stage.call("ann", waiting(record=True, action=ACTION, redirect=False))
    stage.hang_up("ann")
    assert "RecordUrl" not in stage.action_of("ann")


def test_a_recording_that_cannot_start_is_a_problem_and_the_conference_goes_on(stage: Stage) -> None:
    stage.held = {do.StartRecording}
    players(stage, "ann", "bob", record=True)
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "no folder"))
    assert stage.problems() == [(None, "no folder")]
    assert stage.hears("ann") == {"bob"}
    stage.hang_up("ann", "bob")
    assert not stage.directory.conferences


# timeLimit.


def test_the_time_limit_ends_the_conference(stage: Stage) -> None:
    """ "the conference ends after it" """
    stage.call("ann", stay(time_limit=60), Speak("over"))
    stage.pass_time(59.999)
    assert stage.conference() is not None
    stage.pass_time(0.001)
    assert stage.told()[-1] == "exit ann time_limit"
    assert stage.media("ann") == ["over"]


def test_the_first_whose_element_gives_one_sets_it_from_his_entry_on(stage: Stage) -> None:
    """ "the first member whose element gives one sets it, from his entry on; later ones are ignored" """
    stage.call("ann", stay())
    stage.pass_time(100)
    stage.call("bob", stay(time_limit=60))
    stage.pass_time(10)
    stage.call("cid", stay(time_limit=5))
    stage.pass_time(49)
    assert stage.conference() is not None
    stage.pass_time(1)
    assert stage.told()[-3:] == ["exit ann time_limit", "exit bob time_limit", "exit cid time_limit"]


@pytest.mark.parametrize("limit", [None, 0, 86400, 999_999])
def test_the_cap_holds(stage: Stage, limit: int | None) -> None:
    """ "0: no limit of its own, the server's cap holds (86400)"; "without any ends at the cap" """
    stage.call("ann", stay(time_limit=limit))
    stage.call("bob", stay(time_limit=None if limit is None else 5))
    stage.pass_time(86399)
    assert stage.conference() is not None
    stage.pass_time(1)
    assert stage.told()[-1] == "exit bob time_limit"


# hangupOnStar.


def test_star_takes_him_out_without_hanging_up(stage: Stage) -> None:
    """ "`*` takes the member out, without hanging the call up" """
    stage.call("ann", stay(hangup_on_star=True), Speak("goodbye"))
    players(stage, "bob")
    stage.press("ann", "*")
    assert stage.told()[-1] == "exit ann star"
    assert stage.media("ann") == ["goodbye"]
    assert stage.all(do.HangUp) == []


def test_star_leaves_at_once_whatever_the_patterns_are(stage: Stage) -> None:
    """ "`*` with hangupOnStar leaves at once, whatever the patterns are" """
    stage.call("ann", stay(hangup_on_star=True, digits_match=("*", "**", "1*")), Wait(9))
    stage.press("ann", "1*")
    assert stage.told()[1:] == ["exit ann star"]


def test_without_it_star_is_a_digit(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.press("ann", "*")
    assert stage.asterisk.channels["bob"].heard_digits == "*"


def test_star_while_waiting_for_the_start(stage: Stage) -> None:
    stage.call("ann", waiting(hangup_on_star=True), Speak("goodbye"))
    stage.press("ann", "*")
    assert stage.told()[-1] == "exit ann star"
    assert stage.hears("ann") == {stage.all(do.PlayMedia)[-1].playback_id}


# action, method, redirect.


def test_the_action_is_requested_when_the_stay_ends(stage: Stage) -> None:
    """ "Standard parameters, ConferenceName, ConferenceUUID, ConferenceMemberID" """
    stage.call("ann", stay(action=ACTION, hangup_on_star=True, method="GET"), Speak("not this"))
    conference_id = stage.conference_id()
    stage.documents[ACTION] = (Speak("this"),)
    stage.press("ann", "*")
    params = stage.action_of("ann")
    assert params["ConferenceName"] == "standup"
    assert params["ConferenceUUID"] == conference_id
    assert params["ConferenceMemberID"] == "1"
    assert params["CallUUID"] == "call-ann" and params["CallStatus"] == "in-progress"
    assert params["From"] == "4930123" and params["X-PH-Team"] == "blue" and "Event" not in params
    assert [(f.method, f.source) for f in stage.all(do.FetchDocument)][1:] == [("GET", ACTION)]
    assert stage.media("ann") == ["this"], "it replaces the rest of the document"


def test_redirect_false_goes_on_with_the_next_element(stage: Stage) -> None:
    """ "false: request it, ignore the reply, go on with the next element" """
    stage.call("ann", stay(action=ACTION, redirect=False, hangup_on_star=True), Speak("next"))
    stage.documents[ACTION] = (Speak("not this"),)
    stage.press("ann", "*")
    assert stage.actions() == ["ignored ann"]
    assert stage.media("ann") == ["next"]


def test_the_action_is_requested_also_if_he_hung_up(stage: Stage) -> None:
    """ "his action is requested, also if he hung up (then the reply is ignored)" """
    stage.call("ann", stay(action=ACTION))
    stage.hang_up("ann")
    assert stage.actions() == ["ignored ann"]
    assert stage.action_of("ann")["CallStatus"] == "completed"
    (request,) = [e for e in stage.all(do.PostCallback) if e.url == ACTION]
    assert request.method == "POST"


def test_without_an_action_the_next_element_runs_and_without_one_the_call_ends(stage: Stage) -> None:
    """ "without an action the next element runs; no element left: the call is hung up" """
    stage.call("ann", stay(hangup_on_star=True), Speak("next"))
    stage.press("ann", "*")
    assert stage.media("ann") == ["next"] and stage.all(do.HangUp) == []
    stage.finish("ann")
    assert stage.all(do.HangUp) == [do.HangUp("ann")]


def test_the_actions_xml_opens_another_conference(stage: Stage) -> None:
    stage.call("ann", stay(action=ACTION, hangup_on_star=True))
    stage.documents[ACTION] = (stay("second"),)
    stage.press("ann", "*")
    assert stage.told() == ["enter ann", "exit ann star", "enter ann"]
    assert stage.conference("second") is not None


def test_he_hangs_up_while_he_waits_for_the_actions_reply(stage: Stage) -> None:
    stage.call("ann", stay(action=ACTION, hangup_on_star=True))
    stage.documents[ACTION] = (stay("second"),)
    stage.held = {do.FetchDocument}
    stage.press("ann", "*")
    stage.hang_up("ann")
    stage.let_go()
    assert stage.told() == ["enter ann", "exit ann star"]
    stage.assert_nothing_is_left()


def test_a_second_conference_in_the_same_call(stage: Stage) -> None:
    stage.call("ann", stay("one", hangup_on_star=True), stay("two", hangup_on_star=True), Speak("end"))
    stage.press("ann", "*")
    stage.press("ann", "*")
    assert [(c["ConferenceName"], c["ConferenceAction"]) for c in stage.callbacks()] == [
        ("one", "enter"), ("one", "exit"), ("two", "enter"), ("two", "exit")]  # fmt: skip
    assert stage.media("ann") == ["end"]


def test_he_comes_back_to_the_same_conference_at_once(stage: Stage) -> None:
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", stay(hangup_on_star=True), stay(hangup_on_star=True))
    stage.call("bob", stay(wait_sound=MUSIC))
    stage.press("ann", "*")
    assert stage.told()[2:] == ["exit ann star", "enter ann"]
    assert [c["ConferenceSequence"] for c in stage.callbacks()] == ["1", "2", "3", "4"]
    assert stage.hears("bob") == {"ann"}


# callbackUrl.


def test_enter_and_exit_with_their_parameters(stage: Stage) -> None:
    stage.call("ann", stay(callback_method="GET"))
    stage.pass_time(5)
    stage.hang_up("ann")
    entered, left = stage.all(do.PostCallback)
    conference_id = stage.all(do.CreateBridge)[0].bridge_id
    assert (entered.url, entered.method, entered.lane) == (CALLBACK, "GET", conference_id)
    common = {"ConferenceName": "standup", "ConferenceUUID": conference_id, "ConferenceMemberID": "1"}
    common |= {"CallUUID": "call-ann", "From": "4930123", "To": "100", "Direction": "inbound", "ParentAuthID": "A"}
    enter = {"Event": "ConferenceEnter", "ConferenceAction": "enter", "ConferenceFirstMember": "true"}
    exit_ = {"Event": "ConferenceExit", "ConferenceAction": "exit", "ConferenceLastMember": "true"}
    ours = {"ConferenceSequence": "2", "Timestamp": str(START + 5000), "ConferenceExitReason": "hangup"}
    assert (common | enter | {"ConferenceSequence": "1", "Timestamp": str(START)}).items() <= dict(entered.params).items()
    assert (common | exit_ | ours).items() <= dict(left.params).items()
    assert "RequestUUID" in dict(entered.params) and "SessionStart" in dict(entered.params)


def test_first_and_last_member(stage: Stage) -> None:
    """ "ConferenceFirstMember (true, false)"; "ConferenceLastMember (true: the room is empty now)" """
    players(stage, "ann", "bob")
    stage.hang_up("ann")
    players(stage, "cid")
    stage.hang_up("bob", "cid")
    assert [c["ConferenceFirstMember"] for c in stage.callbacks(ConferenceAction="enter")] == ["true", "false", "false"]
    assert [c["ConferenceLastMember"] for c in stage.callbacks(ConferenceAction="exit")] == ["false", "false", "true"]


def test_the_sequence_has_no_gaps_and_is_each_conferences_own(stage: Stage) -> None:
    """ "ConferenceSequence (1, 2, 3 … within the conference, without gaps)" """
    players(stage, "ann", "bob", digits_match=("1",))
    stage.call("cid", stay(callback_url=None))
    stage.call("dan", stay("other"))
    stage.press("ann", "1")
    stage.hang_up("cid", "bob", "ann")
    assert [c["ConferenceSequence"] for c in stage.callbacks(ConferenceName="standup")] == ["1", "2", "3", "4", "5"]
    assert [c["ConferenceSequence"] for c in stage.callbacks(ConferenceName="other")] == ["1"]


def test_what_two_deadlines_bring_is_told_in_the_order_of_its_numbers(stage: Stage) -> None:
    """ "Callbacks of one conference to one URL arrive in that order." """
    stage.call("ann", stay(digits_match=("1", "12")))
    stage.press("ann", "1")
    stage.pass_time(0.5)
    stage.call("bob", Wait(1), stay())
    stage.pass_time(1)
    assert [c["ConferenceSequence"] for c in stage.callbacks()] == ["1", "2", "3"]
    assert set(stage.told()[1:]) == {"enter bob", "digits ann 1"}


def test_without_a_callback_url_nobody_is_told(stage: Stage) -> None:
    stage.call("ann", stay(callback_url=None, digits_match=("1",), floor_event=True))
    stage.press("ann", "1")
    stage.talk("ann")
    stage.hang_up("ann")
    assert stage.all(do.PostCallback) == []


# digitsMatch, relayDTMF.


def test_a_match_is_told_and_not_relayed(stage: Stage) -> None:
    """ "Matched digits never are." """
    stage.call("ann", stay(digits_match=("12", "#9")))
    players(stage, "bob")
    stage.press("ann", "12#9")
    assert stage.told()[2:] == ["digits ann 12", "digits ann #9"]
    assert stage.asterisk.channels["bob"].heard_digits == ""
    (digits, _) = stage.callbacks(ConferenceAction="digits")
    assert digits["Event"] == "ConferenceDigitsMatch" and digits["ConferenceMemberID"] == "1"


def test_patterns_that_begin_alike_wait_1500_ms(stage: Stage) -> None:
    """ "A match is reported when no longer pattern can still match, else 1500 ms after the last digit." """
    stage.call("ann", stay(digits_match=("1", "12", "123")))
    stage.press("ann", "1")
    stage.pass_time(1.4)
    stage.press("ann", "2")
    stage.pass_time(1.499)
    assert len(stage.told()) == 1
    stage.pass_time(0.001)
    assert stage.told()[1:] == ["digits ann 12"]
    stage.press("ann", "123")
    assert stage.told()[2:] == ["digits ann 123"], "no longer one: at once"


def test_digits_that_can_no_longer_match_are_relayed_in_order(stage: Stage) -> None:
    """ "Digits that can no longer be part of a match are relayed if relayDTMF, in order." """
    stage.call("ann", stay(digits_match=("123",)))
    players(stage, "bob", "cid")
    stage.press("ann", "12")
    assert stage.all(do.SendDigits) == []
    stage.press("ann", "45")
    assert [stage.asterisk.channels[n].heard_digits for n in ("ann", "bob", "cid")] == ["", "1245", "1245"]
    stage.press("ann", "1")
    stage.pass_time(1.5)
    assert stage.asterisk.channels["bob"].heard_digits == "12451"


def test_relay_dtmf_false(stage: Stage) -> None:
    stage.call("ann", stay(relay_dtmf=False, digits_match=("1",)))
    players(stage, "bob")
    stage.press("ann", "213")
    assert stage.asterisk.channels["bob"].heard_digits == ""
    assert stage.told()[2:] == ["digits ann 1"]
    stage.press("bob", "7")
    assert stage.asterisk.channels["ann"].heard_digits == "7", "it is about his own digits"


def test_his_last_digits_are_decided_before_he_is_out(stage: Stage) -> None:
    stage.call("ann", stay(digits_match=("1", "12")))
    players(stage, "bob")
    stage.press("ann", "1")
    stage.hang_up("ann")
    assert stage.told()[2:] == ["digits ann 1", "exit ann hangup"]


def test_digits_match_while_waiting_for_the_start(stage: Stage) -> None:
    stage.call("ann", waiting(digits_match=("0",)))
    stage.call("bob", waiting())
    stage.press("ann", "05")
    assert stage.told()[2:] == ["digits ann 0"]
    assert stage.all(do.SendDigits) == [], "nobody hears anybody"


# floorEvent.


def floor(stage: Stage) -> list[str]:
    return [t for t in stage.told() if t.startswith("floor")]


def test_who_talks_takes_the_floor_if_nobody_holds_it_or_the_holder_is_silent(stage: Stage) -> None:
    """ "the holder keeps it through others' interruptions"; "One event for each taking." """
    players(stage, "ann", "bob", floor_event=True)
    stage.talk("ann")
    stage.talk("bob")
    assert floor(stage) == ["floor ann"]
    stage.fall_silent("ann")
    stage.talk("ann")
    assert floor(stage) == ["floor ann"], "he holds it still"
    stage.fall_silent("bob")
    stage.fall_silent("ann")
    stage.talk("bob")
    assert floor(stage) == ["floor ann", "floor bob"]
    assert stage.callbacks(ConferenceAction="floor")[0]["Event"] == "ConferenceFloor"


def test_it_is_free_when_he_leaves(stage: Stage) -> None:
    """ "it is free when he leaves or is muted" """
    players(stage, "ann", "bob", floor_event=True)
    stage.talk("ann")
    stage.hang_up("ann")
    stage.talk("bob")
    assert floor(stage) == ["floor ann", "floor bob"]


def test_a_muted_member_does_not_take_it(stage: Stage) -> None:
    """ "An unmuted member who starts to talk" """
    players(stage, "ann", floor_event=True, muted=True)
    players(stage, "bob", floor_event=True)
    stage.talk("ann")
    stage.talk("bob")
    assert floor(stage) == ["floor bob"]


def test_it_is_told_of_those_alone_who_asked(stage: Stage) -> None:
    """ "tell callbackUrl when this member takes the floor" """
    players(stage, "ann")
    players(stage, "bob", floor_event=True)
    stage.talk("ann")
    stage.talk("bob")
    assert floor(stage) == [], "ann holds it, though nobody is told"
    stage.fall_silent("ann")
    stage.fall_silent("bob")
    stage.talk("bob")
    assert floor(stage) == ["floor bob"]


def test_talking_is_detected_only_where_it_is_needed_and_no_longer(stage: Stage) -> None:
    players(stage, "ann", "bob")
    assert stage.all(do.DetectTalking) == []
    stage.call("cid", stay(floor_event=True, hangup_on_star=True), Wait(9))
    assert {e.channel_id for e in stage.all(do.DetectTalking)} == {"ann", "bob", "cid"}
    stage.press("cid", "*")
    assert stage.all(do.DetectTalking)[-1] == do.DetectTalking("cid", None)


# sendDigits.


def test_send_digits_on_entry(stage: Stage) -> None:
    """ "sends those digits into the conference from the member's leg on entry, `w` = 0.5 s, `W` = 1 s" """
    players(stage, "ann")
    stage.call("bob", stay(send_digits="12w3W4"))
    stage.pass_time(0)
    heard = stage.asterisk.channels["ann"]
    assert heard.heard_digits == "12"
    stage.pass_time(0.5)
    assert heard.heard_digits == "123"
    stage.pass_time(0.999)
    assert heard.heard_digits == "123"
    stage.pass_time(0.001)
    assert heard.heard_digits == "1234"
    assert stage.asterisk.channels["bob"].heard_digits == ""


def test_they_end_with_his_stay(stage: Stage) -> None:
    players(stage, "ann")
    stage.call("bob", stay(send_digits="W5"))
    stage.hang_up("bob")
    stage.pass_time(2)
    assert stage.asterisk.channels["ann"].heard_digits == ""


# Sound documents.


def test_the_request_of_a_sound_document(stage: Stage) -> None:
    """ "The request carries the standard parameters, ConferenceName, Event=ConferenceRemoteSounds, and ConferenceAction" """
    stage.call("ann", stay(enter_sound="http://s/1", exit_sound="http://s/2", wait_sound="http://s/3"))
    asked = {dict(e.params)["ConferenceAction"]: e for e in stage.all(do.FetchSounds)}
    assert {action: e.url for action, e in asked.items()} == {
        "enterSound": "http://s/1", "exitSound": "http://s/2", "waitSound": "http://s/3"}  # fmt: skip
    for effect in asked.values():
        params = dict(effect.params)
        assert params["ConferenceName"] == "standup" and params["Event"] == "ConferenceRemoteSounds"
        assert params["CallUUID"] == "call-ann" and params["ParentAuthID"] == "A" == effect.auth_id


def test_the_wait_sound_loops_with_750_ms_of_silence(stage: Stage) -> None:
    """ "waitSound loops until it is no longer needed, with 750 ms of silence before each repetition" """
    stage.sounds[MUSIC] = (Play("jazz"), Wait(2), Speak("please hold"))
    stage.call("ann", waiting(wait_sound=MUSIC))
    stage.finish("ann")
    stage.pass_time(1.999)
    assert stage.media("ann") == ["jazz"]
    stage.pass_time(0.001)
    stage.finish("ann")
    stage.pass_time(0.749)
    assert stage.media("ann") == ["jazz", "please hold"]
    stage.pass_time(0.001)
    assert stage.media("ann") == ["jazz", "please hold", "jazz"]
    assert len(stage.all(do.FetchSounds)) == 1


def test_it_is_asked_for_again_only_when_the_document_held_no_sound(stage: Stage) -> None:
    """ "and is asked for again only when the document held no sound" """
    stage.sounds[MUSIC] = ()
    stage.call("ann", waiting(wait_sound=MUSIC))
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.pass_time(5)
    assert stage.media("ann") == ["jazz"]
    assert len(stage.all(do.FetchSounds)) == 2


def test_a_wait_sound_that_cannot_be_played_is_asked_for_again(stage: Stage) -> None:
    stage.sounds[MUSIC] = (Play("broken"),)
    stage.call("ann", waiting(wait_sound=MUSIC))
    assert stage.problems() == [(None, "broken")]
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.pass_time(5)
    assert stage.media("ann") == ["jazz"]


def test_a_fetch_that_fails_means_no_sound_and_a_warning(stage: Stage) -> None:
    """ "A fetch that fails means no sound (waiting for the start: default music) and a warning." """
    stage.call("ann", waiting(wait_sound="http://s/1"))
    assert stage.hears("ann") == {"music"}
    stage.call("bob", stay("other", wait_sound="http://s/1", enter_sound="http://s/2", exit_sound="http://s/3"))
    assert stage.hears("bob") == set() == set(stage.media("bob"))
    texts = [text for _, text in stage.problems()]
    assert texts == ["waitSound: it is away", "enterSound: it is away", "exitSound: it is away", "waitSound: it is away"]


def test_the_document_comes_when_it_is_no_longer_needed(stage: Stage) -> None:
    stage.held = {do.FetchSounds}
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", waiting(wait_sound=MUSIC))
    players(stage, "host")
    stage.let_go()
    assert stage.hears("ann") == {"host"}
    stage.hang_up("host")
    assert stage.media("ann") == ["jazz"], "and serves when he is alone"


def test_an_announcement_of_two_sounds_in_order(stage: Stage) -> None:
    """ "whose Play, Speak and Wait run in order" """
    stage.sounds[MUSIC] = (Speak("now comes"), Wait(1), Play("name"))
    stage.call("ann", stay(enter_sound=MUSIC))
    conference_id = stage.conference_id()
    stage.finish(conference_id)
    stage.pass_time(1)
    assert stage.media(conference_id) == ["now comes", "name"]


# Leaving.


def test_the_order_at_leaving(stage: Stage) -> None:
    """ "he is out of the mix; exit callback; exitSound to those who remain; his action is requested" """
    stage.call("ann", stay())
    stage.call("bob", stay(exit_sound="beep:1", action=ACTION, hangup_on_star=True))
    stage.held = {do.RemoveChannel}
    stage.press("bob", "*")
    assert stage.told()[2:] == [], "he is still in the mix"
    before = len(stage.effects)
    stage.let_go()
    kinds = [type(e) for e in stage.effects[before:] if isinstance(e, do.PostCallback | do.PrepareSound | do.FetchDocument)]
    assert kinds[:3] == [do.PostCallback, do.PrepareSound, do.FetchDocument]


def test_he_is_let_go_even_if_asterisk_never_says_that_he_left(stage: Stage) -> None:
    stage.call("ann", stay(hangup_on_star=True), Speak("next"))
    stage.held = {do.RemoveChannel}
    stage.press("ann", "*")
    stage.pass_time(3)
    assert stage.told()[-1] == "exit ann star" and stage.media("ann") == ["next"]


def test_every_leaver_gets_one_exit_also_when_it_ends_for_all(stage: Stage) -> None:
    """ "every leaver gets one, also when the conference ends for all" """
    stage.call("host", stay(end_conference_on_exit=True))
    names = [f"m{n}" for n in range(5)]
    players(stage, *names)
    stage.asterisk.hang_up("host")
    stage.asterisk.hang_up("m3")
    stage.go_on()
    exits = [t.split()[1] for t in stage.told() if t.startswith("exit")]
    assert sorted(exits) == sorted(["host", *names])
    assert [c["ConferenceLastMember"] for c in stage.callbacks(ConferenceAction="exit")][-2:] == ["false", "true"]


def test_the_last_one_out_ends_it(stage: Stage) -> None:
    """ "The last one out ends it. Ended means: recording stopped, bridge destroyed, name free" """
    players(stage, "ann", record=True)
    conference_id = stage.conference_id()
    stage.hang_up("ann")
    assert do.ReleaseName("A", "standup", conference_id) in stage.effects
    stage.assert_nothing_is_left()


def test_a_caller_hangs_up_while_the_name_is_claimed(stage: Stage) -> None:
    stage.held = {do.ClaimName}
    stage.call("ann", stay(action=ACTION))
    stage.hang_up("ann")
    stage.let_go()
    assert stage.callbacks() == stage.actions() == []
    assert len(stage.all(do.ReleaseName)) == 1
    stage.assert_nothing_is_left()


def test_a_caller_hangs_up_while_the_bridge_is_made(stage: Stage) -> None:
    stage.held = {do.CreateBridge}
    players(stage, "ann")
    stage.hang_up("ann")
    stage.let_go()
    assert stage.told() == ["enter ann", "exit ann hangup"]
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("news_first", [True, False])
def test_a_caller_hangs_up_while_joining(stage: Stage, news_first: bool) -> None:
    stage.held = {do.AddChannel}
    players(stage, "ann")
    stage.asterisk.hang_up("ann")
    if news_first:
        stage.go_on()
    stage.let_go()
    assert stage.told() == ["enter ann", "exit ann hangup"]
    stage.pass_time(5)
    stage.assert_nothing_is_left()


def test_asterisk_can_not_add_him(stage: Stage) -> None:
    stage.held = {do.AddChannel}
    stage.call("ann", stay(), Speak("next"))
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "no answer in time"))
    stage.pass_time(3)
    assert stage.told() == ["enter ann", "exit ann conference_ended"]
    assert (None, "no answer in time") in stage.problems()
    assert stage.media("ann") == ["next"]


def test_the_bridge_can_not_be_made(stage: Stage) -> None:
    stage.held = {do.CreateBridge}
    stage.call("ann", stay(), Speak("next"))
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "no memory"))
    assert stage.told() == ["enter ann", "exit ann conference_ended"]
    assert stage.problems() == [(None, "no memory")] and stage.media("ann") == ["next"]
    assert not stage.directory.conferences


def test_the_bridge_is_destroyed_from_outside(stage: Stage) -> None:
    for name in ("ann", "bob"):
        stage.call(name, stay(record=True), Speak("next"))
    stage.asterisk.destroy(stage.conference_id())
    stage.go_on()
    assert stage.told()[2:] == ["exit ann conference_ended", "exit bob conference_ended"]
    assert stage.media("ann") == stage.media("bob") == ["next"]
    assert not stage.directory.conferences


def test_the_call_is_ended_by_its_schedule_and_asterisk_says_nothing(stage: Stage) -> None:
    stage.call("ann", Hangup(schedule=10), stay())
    stage.held = {do.HangUp}
    stage.pass_time(10)
    stage.pass_time(5)
    assert stage.told() == ["enter ann", "exit ann hangup"]
    assert not stage.directory.calls and not stage.directory.conferences


def test_the_channel_is_gone_when_it_is_to_be_hung_up(stage: Stage) -> None:
    stage.call("ann", Hangup(schedule=10), stay())
    stage.held = {do.HangUp}
    stage.pass_time(10)
    stage.tell(ev.EffectFailed(do.HangUp("ann"), "Channel not found", gone=True))
    assert stage.told() == ["enter ann", "exit ann hangup"]


def test_twenty_enter_while_twenty_leave(stage: Stage) -> None:
    first, second = [f"a{n}" for n in range(20)], [f"b{n}" for n in range(20)]
    players(stage, *first)
    for gone, come in zip(first, second, strict=True):
        stage.asterisk.hang_up(gone)
        stage.call(come, stay())
    assert len(stage.callbacks(ConferenceAction="enter")) == 40
    assert len(stage.callbacks(ConferenceAction="exit")) == 20
    assert stage.hears("b0") == set(second) - {"b0"}
    stage.hang_up(*second)
    assert [int(c["ConferenceSequence"]) for c in stage.callbacks()] == list(range(1, 81))
    stage.assert_nothing_is_left()


def test_a_pin_before_the_conference(stage: Stage) -> None:
    stage.call("ann", GetDigits((Speak("your PIN"),), action=ACTION, num_digits=4))
    stage.documents[ACTION] = (stay(),)
    stage.press("ann", "1234")
    assert stage.told() == ["enter ann"]
    assert dict(stage.all(do.FetchDocument)[-1].params)["Digits"] == "1234"
