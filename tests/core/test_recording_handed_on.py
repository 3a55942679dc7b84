"""Recording at its end: it is handed on once, with the members who were in and those who spoke."""

from __future__ import annotations

import pytest

from ari_conf.core import commands, ids
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from tests.core.stage import CALLBACK, START, Stage, players, stay


def handed_on(stage: Stage) -> do.StoreRecording:
    (effect,) = stage.all(do.StoreRecording)
    return effect


def test_it_is_handed_on_when_asterisk_has_ended_it_and_before_the_bridge_goes(stage: Stage) -> None:
    stage.call("ann", stay(record=True, record_file_format="wav", transcription_type="auto"))
    conference_id = stage.conference_id()
    stage.held = {do.StopRecording}
    stage.hang_up("ann")
    assert stage.all(do.StoreRecording) == []
    stage.let_go()
    effect = handed_on(stage)
    assert (effect.auth_id, effect.conference_id, effect.conference_name) == ("A", conference_id, "standup")
    assert (effect.call_uuid, effect.file_format, effect.transcribe) == ("call-ann", "wav", True)
    assert effect.recording_id == stage.all(do.StartRecording)[0].recording_id
    assert stage.effects.index(effect) < stage.effects.index(do.DestroyBridge(ids.bridge_id(conference_id)))
    stage.assert_nothing_is_left()


def test_its_callback_is_the_last_of_the_sequence_and_of_no_member(stage: Stage) -> None:
    """ "No ConferenceMemberID, no CallUUID"; "1, 2, 3 … within the conference, without gaps" """
    stage.call("ann", stay(record=True))
    stage.call("bob", stay())
    stage.hang_up("ann", "bob")
    callback = handed_on(stage).callback
    assert callback is not None
    assert (callback.url, callback.method, callback.ordering_scope) == (
        CALLBACK,
        "POST",
        handed_on(stage).conference_id,
    )
    params = dict(callback.params)
    assert not {"ConferenceMemberID", "CallUUID", "RecordingDuration"} & params.keys()
    assert (params["ConferenceAction"], params["Event"], params["From"]) == ("record", "ConferenceRecord", "4930123")
    assert params["RecordUrl"] == handed_on(stage).record_url
    reported = [int(one["ConferenceSequence"]) for one in stage.callbacks()]
    assert [*reported, int(params["ConferenceSequence"])] == list(range(1, len(reported) + 2))


def test_one_without_a_callback_url_is_stored_all_the_same(stage: Stage) -> None:
    stage.call("ann", stay(record=True, callback_url=None))
    stage.call("bob", stay())
    stage.hang_up("ann", "bob")
    assert handed_on(stage).callback is None
    reported = [int(one["ConferenceSequence"]) for one in stage.callbacks()]
    assert reported == list(range(1, len(reported) + 1))


def test_its_instants_are_those_at_which_asterisk_began_and_ended_it(stage: Stage) -> None:
    stage.held = {do.StartRecording}
    stage.call("ann", stay(record=True))
    stage.pass_time(0.2)
    stage.let_go()
    stage.pass_time(60)
    stage.hang_up("ann")
    assert (handed_on(stage).start_ms, handed_on(stage).end_ms) == (START + 200, START + 60_200)


def test_recording_says_who_was_in_and_when(stage: Stage) -> None:
    stage.call("ann", stay(record=True))
    stage.pass_time(1)
    stage.call("bob", stay())
    stage.pass_time(1)
    stage.hang_up("ann")
    stage.pass_time(1)
    stage.hang_up("bob")
    stays = [(n.call_uuid, n.from_, n.to, n.entered_ms - START, n.left_ms) for n in stage.all(do.AddAttendanceNote)]
    assert stays == [
        ("call-ann", "4930123", "100", 0, START + 2000),
        ("call-bob", "4930123", "100", 1000, START + 3000),
    ]
    assert {note.recording_id for note in stage.all(do.AddAttendanceNote)} == {handed_on(stage).recording_id}


def test_recording_says_who_spoke_and_when(stage: Stage) -> None:
    """Asterisk reports the end of talking after 500 ms of silence. A member who leaves has stopped talking too."""
    players(stage, "ann", "bob", record=True)
    stage.pass_time(1)
    stage.talk("ann")
    stage.pass_time(2)
    stage.fall_silent("ann")
    stage.talk("bob")
    stage.pass_time(1)
    stage.hang_up("bob")
    assert [(n.start_ms - START, n.end_ms - START) for n in stage.all(do.AddSpeechNote)] == [(1000, 2500), (3000, 4000)]
    stage.fall_silent("ann")
    assert len(stage.all(do.AddSpeechNote)) == 2, "she had not begun again"


def test_a_muted_member_does_not_speak(stage: Stage) -> None:
    stage.call("ann", stay(record=True, muted=True))
    stage.talk("ann")
    stage.pass_time(1)
    stage.fall_silent("ann")
    stage.hang_up("ann")
    assert stage.all(do.AddSpeechNote) == []


def test_speech_before_the_mute_counts_and_speech_during_it_does_not(stage: Stage) -> None:
    players(stage, "ann", "bob", record=True)
    stage.talk("ann")
    stage.pass_time(2)
    mute(stage, True)
    stage.pass_time(3)
    mute(stage, False)
    stage.pass_time(4)
    stage.fall_silent("ann")
    assert [(n.start_ms - START, n.end_ms - START) for n in stage.all(do.AddSpeechNote)] == [(0, 2000), (5000, 8500)]


def mute(stage: Stage, on: bool) -> None:
    command = commands.Mute((1,), on)
    stage.tell(ev.CommandReceived(f"mute {on}", commands.ForConference("A", "standup", command), stage.now + 1))


def test_one_that_failed_is_handed_on_as_such(stage: Stage) -> None:
    """Only Asterisk's disk shows whether a file exists after all."""
    stage.held = {do.StartRecording}
    stage.call("ann", stay(record=True))
    stage.tell(ev.EffectFailed(stage.give_up(), "no answer in time"))
    stage.call("bob", stay())
    stage.hang_up("bob")
    assert stage.all(do.StoreRecording) == [], "the recording may still run"
    stage.hang_up("ann")
    assert len(stage.all(do.StopRecording)) == 1
    assert handed_on(stage).failed


@pytest.mark.parametrize("wideband", [True, False])
def test_it_is_of_the_best_rate_that_the_conference_has(stage: Stage, wideband: bool) -> None:
    """ "16 kHz when callers are wideband, else 8 kHz": also for a member who still waits for the start."""
    stage.wideband = {"ann"} if wideband else set()
    stage.call("ann", stay(start_conference_on_enter=False))
    stage.call("host", stay(record=True))
    assert [effect.wideband for effect in stage.all(do.StartRecording)] == [wideband]
