"""Recordings of calls: Record, in the foreground and in the background, and the API's commands."""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.bounds import MAX_CALL_RECORDINGS
from ari_conf.core.calls.call import Call
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.invariants import call_violations
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.reconciliation.plan import make_plan
from ari_conf.core.recording import STOP_TIMEOUT_MS, RecordingState
from ari_conf.core.step_failed import StepFailed
from tests.core.copies import copied
from tests.core.stage import ACTION, CALLBACK, START, Stage, stay

HANGUP = "http://hangup.example/"
AFTER = el.Play("after")


@pytest.fixture
def stage() -> Stage:
    stage = Stage(hangup_url=HANGUP)
    stage.documents[ACTION] = (el.Play("thanks"),)
    return stage


def voicemail(**attributes: Any) -> el.Record:
    return el.Record(**{"action": ACTION, "callback_url": CALLBACK, "play_beep": False, **attributes})


def session(**attributes: Any) -> el.Record:
    return el.Record(record_session=True, **{"callback_url": CALLBACK, **attributes})


def stored(stage: Stage) -> do.StoreRecording:
    (effect,) = stage.all(do.StoreRecording)
    return effect


def actions(stage: Stage) -> list[tuple[type, dict[str, str]]]:
    """Return the kind and the parameters of the requests to the action."""
    found = [e for e in stage.effects if isinstance(e, do.FetchDocument | do.PostCallback)]
    return [
        (type(e), dict(e.params)) for e in found if (e.source if isinstance(e, do.FetchDocument) else e.url) == ACTION
    ]


def command(stage: Stage, wanted: api.CallCommand, name: str = "ann", auth: str = "A") -> do.CommandReply:
    event = ev.CommandReceived(f"c{len(stage.effects)}", api.ForCall(auth, f"call-{name}", wanted), stage.now + 5000)
    (reply,) = [effect for effect in stage.tell(event) if isinstance(effect, do.CommandReply)]
    return reply


def snoops(stage: Stage) -> dict[str, str]:
    """Return the direction of each running track."""
    return {key: key.rpartition(".")[2] for key in stage.asterisk.recordings}


# Record.


def test_the_recording_begins_when_the_beep_has_ended(stage: Stage) -> None:
    stage.call("ann", voicemail(play_beep=True))
    assert stage.media("ann") and not stage.asterisk.recordings, "the beep is not part of it"
    stage.finish("ann")
    assert list(snoops(stage).values()) == ["in"], "the caller's own voice"
    assert all(effect.channel_id == "ann" for effect in stage.all(do.Answer)) and stage.asterisk.channels["ann"].up


def test_silence_ends_it(stage: Stage) -> None:
    stage.call("ann", voicemail(timeout=3))
    stage.pass_time(1)
    stage.talk("ann")
    stage.pass_time(5)
    assert stage.asterisk.recordings, "the caller talks"
    stage.fall_silent("ann")
    ((kind, params),) = actions(stage)
    assert kind is do.FetchDocument and params["Event"] == "Redirect"
    assert stage.media("ann") == ["thanks"]
    assert params["RecordingDuration"] == "6" and params["RecordingDurationMs"] == "6000"
    assert (params["RecordingStartMs"], params["RecordingEndMs"]) == (str(START), str(START + 6000))
    assert params["Digits"] == "" and params["RecordUrl"] == stored(stage).record_url
    assert params["RecordingID"] == stored(stage).recording_id in stored(stage).record_url


def test_nothing_said_ends_it_after_the_timeout(stage: Stage) -> None:
    stage.call("ann", voicemail(timeout=3))
    stage.pass_time(2.9)
    assert stage.asterisk.recordings
    stage.pass_time(0.2)
    assert not stage.asterisk.recordings and len(actions(stage)) == 1


def test_it_ends_after_max_length(stage: Stage) -> None:
    stage.call("ann", voicemail(max_length=10))
    stage.talk("ann")
    stage.pass_time(9.9)
    assert stage.asterisk.recordings
    stage.pass_time(0.2)
    assert not stage.asterisk.recordings and actions(stage)[0][1]["RecordingDurationMs"] == "10000"


def test_a_key_ends_it_and_is_told(stage: Stage) -> None:
    stage.call("ann", voicemail(finish_on_key="*9", redirect=False), AFTER)
    stage.press("ann", "12#")
    assert stage.asterisk.recordings
    stage.press("ann", "9")
    ((kind, params),) = actions(stage)
    assert kind is do.PostCallback and params["Digits"] == "9"
    assert stage.media("ann") == ["after"], "redirect=false: the reply is ignored, the next element runs"


def test_no_key_ends_it(stage: Stage) -> None:
    stage.call("ann", voicemail(finish_on_key=""))
    stage.press("ann", "12#*")
    assert stage.asterisk.recordings


def test_a_key_during_the_beep_ends_nothing(stage: Stage) -> None:
    stage.call("ann", voicemail(play_beep=True))
    stage.press("ann", "#")
    stage.finish("ann")
    assert stage.asterisk.recordings


def test_without_an_action_the_next_element_runs(stage: Stage) -> None:
    stage.call("ann", voicemail(action=None, timeout=1), AFTER)
    stage.pass_time(2)
    assert stage.media("ann") == ["after"] and not actions(stage)


def test_its_callback_has_the_standard_parameters_and_no_digits(stage: Stage) -> None:
    stage.call("ann", voicemail(timeout=1, file_format="wav", transcription_type="auto"))
    stage.pass_time(2)
    effect = stored(stage)
    assert (effect.conference_id, effect.call_uuid, effect.file_format) == ("", "call-ann", "wav")
    assert (effect.tracks, effect.transcribe) == (("in",), True)
    assert effect.callback is not None and effect.callback.ordering_scope == "call-ann"
    params = dict(effect.callback.params)
    assert (params["Event"], params["CallUUID"], params["From"]) == ("Record", "call-ann", "4930123")
    assert not {"Digits", "RecordingDuration", "ConferenceAction"} & params.keys()
    (note,) = stage.all(do.AddAttendanceNote)
    assert (note.recording_id, note.from_, note.to) == (effect.recording_id, "4930123", "100")


def test_a_caller_who_hangs_up_has_left_a_message(stage: Stage) -> None:
    stage.call("ann", voicemail())
    stage.pass_time(4)
    stage.hang_up("ann")
    ((kind, params),) = actions(stage)
    assert kind is do.PostCallback and params["CallStatus"] == "completed"
    assert params["RecordingDurationMs"] == "4000" and params["RecordUrl"] == stored(stage).record_url
    order = [e for e in stage.effects if isinstance(e, do.PostCallback) and e.url in (ACTION, HANGUP)]
    assert [e.url for e in order] == [ACTION, HANGUP]
    stage.assert_nothing_is_left()


def test_a_caller_who_hangs_up_during_the_beep_has_left_none(stage: Stage) -> None:
    stage.call("ann", voicemail(play_beep=True))
    stage.hang_up("ann")
    assert not actions(stage) and not stage.all(do.StoreRecording)
    stage.assert_nothing_is_left()


def test_a_call_that_is_hung_up_while_it_is_recorded(stage: Stage) -> None:
    stage.call("ann", voicemail())
    stage.pass_time(1)
    assert command(stage, api.HangUpCall()).status == 204
    assert len(actions(stage)) == 1 and actions(stage)[0][0] is do.PostCallback
    assert len(stage.all(do.StoreRecording)) == 1
    stage.assert_nothing_is_left()


def test_one_that_can_not_begin_is_a_problem_and_the_next_element_runs(stage: Stage) -> None:
    stage.held = {do.StartRecording}
    stage.call("ann", voicemail(), AFTER)
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "disk full", refused=True))
    assert stage.media("ann") == ["after"] and not actions(stage) and not stage.all(do.StoreRecording)
    assert [e.kind for e in stage.all(do.ReportProblem)] == [ProblemKind.RECORDING_FAILED]


def test_one_that_stops_by_itself_is_a_problem_and_is_stored(stage: Stage) -> None:
    stage.call("ann", voicemail())
    stage.pass_time(2)
    (key,) = stage.asterisk.recordings
    stage.asterisk.fail_recording(key)
    stage.go_on()
    assert [e.kind for e in stage.all(do.ReportProblem)] == [ProblemKind.RECORDING_FAILED]
    assert stored(stage).end_ms == START + 2000 and len(actions(stage)) == 1
    assert [e.source_id for e in stage.all(do.StopRecording)] == [key], "its snoop channel is hung up"


def test_an_end_that_is_not_reported_holds_nothing_up(stage: Stage) -> None:
    stage.held = {do.StopRecording}
    stage.call("ann", voicemail(timeout=1), AFTER)
    stage.pass_time(1.1)
    assert not actions(stage)
    stage.pass_time(STOP_TIMEOUT_MS / 1000)
    assert len(actions(stage)) == 1 and len(stage.all(do.StoreRecording)) == 1


# In the background.


def test_the_whole_call_is_recorded_and_the_document_goes_on(stage: Stage) -> None:
    stage.call("ann", session(action=ACTION, redirect=False), AFTER, stay())
    assert list(snoops(stage).values()) == ["in", "out"]
    ((kind, params),) = actions(stage)
    assert kind is do.PostCallback
    assert (params["RecordingDuration"], params["RecordingDurationMs"]) == ("-1", "-1") and "Digits" not in params
    assert stage.media("ann") == ["after"]
    stage.finish("ann")
    stage.call("bob", stay())
    assert stage.hears("ann") == {"bob"} and len(stage.asterisk.recordings) == 2
    stage.press("ann", "#")
    stage.pass_time(30)
    assert len(stage.asterisk.recordings) == 2, "neither key nor silence ends it"
    stage.hang_up("ann")
    assert stored(stage).tracks == ("in", "out")
    assert stored(stage).end_ms - stored(stage).start_ms == 30_000
    stage.hang_up("bob")
    stage.assert_nothing_is_left()


def test_its_action_replaces_the_document(stage: Stage) -> None:
    stage.call("ann", session(action=ACTION), AFTER)
    assert stage.media("ann") == ["thanks"] and actions(stage)[0][0] is do.FetchDocument
    assert len(stage.asterisk.recordings) == 2


def test_its_length_is_limited(stage: Stage) -> None:
    stage.call("ann", session(max_length=20, record_channel_type="mono"), stay())
    assert list(snoops(stage).values()) == ["both"]
    stage.pass_time(19)
    assert stage.asterisk.recordings
    stage.pass_time(1.1)
    assert not stage.asterisk.recordings and stored(stage).end_ms - stored(stage).start_ms == 20_000
    assert stage.conference() is not None, "the call continues"


def test_one_track_that_ends_ends_the_other(stage: Stage) -> None:
    stage.call("ann", session(), stay())
    first, second = stage.asterisk.recordings
    stage.asterisk.fail_recording(first)
    stage.go_on()
    assert not stage.asterisk.recordings and len(stage.all(do.StoreRecording)) == 1
    assert {e.source_id for e in stage.all(do.StopRecording)} == {first, second}


def test_without_a_dial_there_is_no_answer_to_wait_for(stage: Stage) -> None:
    stage.call("ann", el.Record(start_on_dial_answer=True), AFTER)
    assert not stage.asterisk.recordings and stage.media("ann") == ["after"]


def test_a_call_has_a_limited_number_of_recordings(stage: Stage) -> None:
    stage.call("ann", *[session(record_channel_type="mono")] * (MAX_CALL_RECORDINGS + 1), AFTER)
    assert len(stage.asterisk.recordings) == MAX_CALL_RECORDINGS and stage.media("ann") == ["after"]
    assert [e.kind for e in stage.all(do.ReportProblem)] == [ProblemKind.RECORDING_FAILED]
    assert command(stage, api.RecordCall("r1")).status == 409
    stage.hang_up("ann")
    assert len(stage.all(do.StoreRecording)) == MAX_CALL_RECORDINGS
    stage.assert_nothing_is_left()


# The API.


def test_the_api_records_until_its_limit(stage: Stage) -> None:
    stage.call("ann", stay())
    reply = command(stage, api.RecordCall("r1", "wav", stereo=False, time_limit=7, callback_url=CALLBACK))
    url = "https://conference.example/v1/Account/A/Recording/r1.wav"
    assert reply.status == 202
    assert dict(reply.body) == {"url": url, "message": "call recording started", "recording_id": "r1"}
    stage.pass_time(7)
    effect = stored(stage)
    assert effect.tracks == ("both",) and effect.end_ms - effect.start_ms == 7000
    assert effect.callback is not None and dict(effect.callback.params) == {
        "api_id": reply.command_id,
        "record_url": url,
        "call_uuid": "call-ann",
        "recording_id": "r1",
        "recording_start_ms": str(START),
        "recording_end_ms": str(START + 7000),
    }


def test_a_url_stops_that_recording_alone(stage: Stage) -> None:
    stage.call("ann", session(), stay())
    one, two = (dict(command(stage, api.RecordCall(name)).body)["url"] for name in ("r1", "r2"))
    assert command(stage, api.StopRecordingCall(str(one))).status == 204
    assert [e.recording_id for e in stage.all(do.StoreRecording)] == ["r1"]
    assert command(stage, api.StopRecordingCall(str(one))).status == 404
    assert command(stage, api.StopRecordingCall()).status == 204, "all of the API's, and not the document's"
    assert [e.recording_id for e in stage.all(do.StoreRecording)] == ["r1", "r2"] and two
    assert len(stage.asterisk.recordings) == 2
    assert command(stage, api.StopRecordingCall()).status == 404


def test_another_account_neither_records_nor_stops(stage: Stage) -> None:
    stage.call("ann", stay())
    command(stage, api.RecordCall("r1"))
    for wanted in (api.RecordCall("r2"), api.StopRecordingCall()):
        assert command(stage, wanted, auth="B").status == 404
    assert {ids.recorder_of(key) for key in stage.asterisk.recordings} == {("call-ann", "r1")}


# Crashes.


def everything(stage: Stage) -> AsteriskState:
    channels = {id: channel.up for id, channel in stage.asterisk.channels.items()}
    return AsteriskState(channels, {}, recordings=frozenset(stage.asterisk.recordings))


def test_what_was_requested_and_did_not_begin_begins_after_a_crash(stage: Stage) -> None:
    stage.held = {do.StartRecording}
    stage.call("ann", session(), el.Wait(60))
    (call,) = stage.engine.calls.values()
    again = copied(call).resume(everything(stage))
    assert [e for e in again if isinstance(e, do.StartRecording)] == stage.all(do.StartRecording)
    implied = [e.implied_event(everything(stage)) for e in call.expectations() if e.kind == "recording"]
    assert all(isinstance(event, ev.RecordingFinished) for event in implied)
    assert not any(e.confirmed_started for e in call.expectations() if e.kind == "recording")


def test_what_ended_in_the_meantime_is_found(stage: Stage) -> None:
    stage.call("ann", session(), el.Wait(60))
    (call,) = stage.engine.calls.values()
    assert [e for e in call.resume(everything(stage)) if isinstance(e, do.StartRecording)] == []
    stage.asterisk.recordings.clear()
    missed = [e.implied_event(everything(stage)) for e in call.expectations() if e.kind == "recording"]
    stage.tell(*[event for event in missed if event is not None])
    assert len(stage.all(do.StoreRecording)) == 1 and not call.recordings


def test_a_stop_that_was_lost_is_repeated(stage: Stage) -> None:
    stage.held = {do.StopRecording}
    stage.call("ann", stay())
    command(stage, api.RecordCall("r1"))
    command(stage, api.StopRecordingCall())
    (call,) = stage.engine.calls.values()
    assert [e for e in copied(call).resume(everything(stage)) if isinstance(e, do.StopRecording)] == stage.waiting


def test_a_stop_that_fails_is_repeated(stage: Stage) -> None:
    stage.call("ann", stay())
    command(stage, api.RecordCall("r1", stereo=False))
    stage.failing[do.StopRecording] = 5
    command(stage, api.StopRecordingCall())
    stage.pass_time(600)
    assert len(stage.all(do.StoreRecording)) == 1 and not stage.asterisk.recordings


@pytest.mark.parametrize("element", [voicemail(), voicemail(play_beep=True), session()], ids=["voice", "beep", "all"])
def test_a_call_that_is_recorded_is_persisted_as_it_is(stage: Stage, element: el.Record) -> None:
    stage.call("ann", element, el.Wait(60))
    (call,) = stage.engine.calls.values()
    assert copied(call) == call and not [*call_violations(call)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: setattr(r, "recording_id", "another"),
        lambda r: setattr(r, "channel_id", "bob"),
        lambda r: setattr(r, "started_at", -1),
        lambda r: setattr(r, "state", RecordingState.STOPPED),
        lambda r: setattr(r, "track_names", ()),
    ],
)
def test_a_damaged_recording_is_noticed(stage: Stage, damage: Any) -> None:
    stage.call("ann", session(), el.Wait(60))
    (call,) = stage.engine.calls.values()
    damage(next(iter(call.recordings.values())))
    assert [*call_violations(call)]


def test_a_call_that_is_given_up_hands_its_recordings_on(stage: Stage) -> None:
    stage.call("ann", session(), stay())
    stage.carry_out(stage.engine.abort(["call-ann"], stage.now))
    assert len(stage.all(do.StoreRecording)) == 1
    stage.pass_time(60)
    stage.assert_nothing_is_left()


def test_a_caller_who_fell_silent_unheard_has_said_all(stage: Stage) -> None:
    """After a gap, nobody knows whether the caller still talks: the silence counts from there on, unless they do."""
    stage.call("ann", voicemail(timeout=3))
    stage.talk("ann")
    plan = make_plan(stage.engine, [], everything(stage), why="takeover", ours=bool)  # type: ignore[arg-type]
    stage.tell(*plan.missed_events)
    stage.pass_time(2.9)
    assert stage.asterisk.recordings
    stage.talk("ann")
    stage.pass_time(10)
    assert stage.asterisk.recordings, "they talk"
    stage.tell(*make_plan(stage.engine, [], everything(stage), why="connection", ours=bool).missed_events)  # type: ignore[arg-type]
    stage.pass_time(3.1)
    assert not stage.asterisk.recordings


@pytest.mark.parametrize("place", ["_hangup_callback", "_stop_running"])
def test_a_step_that_fails_loses_no_recording(stage: Stage, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    stage.call("ann", session(), el.Wait(60))

    def breaks(*_: Any) -> None:
        monkeypatch.undo()
        raise RuntimeError("a bug")

    monkeypatch.setattr(Call, place, breaks)
    with pytest.raises(StepFailed) as failed:
        stage.hang_up("ann")
    stage.carry_out(stage.engine.abort_failed_step(failed.value, stage.now))
    assert len(stage.all(do.StoreRecording)) == 1
    stage.pass_time(60)
    stage.assert_nothing_is_left()
