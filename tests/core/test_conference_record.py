"""record, recordFileFormat. Each play quotes the sentence that it checks."""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Wait
from tests.core.stage import ACTION, Stage, players, stay, waiting

# record.


def test_one_recording_from_the_start_with_a_member_whose_record_is_true(stage: Stage) -> None:
    """ "It begins when the conference has started and a member whose `record` is true is in" """
    stage.call("ann", waiting(record=True))
    assert stage.all(do.StartRecording) == []
    stage.call("host", stay())
    assert [e.source_id for e in stage.all(do.StartRecording)] == [stage.bridge_id()]
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
    bridge = stage.bridge_id()
    stage.hang_up("ann")
    assert stage.asterisk.recordings
    stage.held = {do.StopRecording}
    stage.hang_up("bob")
    assert do.DestroyBridge(bridge) not in stage.effects, "first the recording is stopped"
    stage.let_go()
    assert stage.all(do.DestroyBridge) == [do.DestroyBridge(bridge)]
    stage.assert_nothing_is_left()


def test_a_recording_that_ends_by_itself_is_a_problem_and_the_conference_goes_on(stage: Stage) -> None:
    stage.call("ann", stay(record=True))
    (started,) = stage.all(do.StartRecording)
    stage.tell(ev.RecordingFinished(stage.conference_id(), started.recording_id, failed=True))
    (reported,) = stage.all(do.ReportProblem)
    assert "stopped unexpectedly; the conference continues: is Asterisk's disk full?" in reported.text
    stage.call("bob", stay())
    assert len(stage.conference().members) == 2
    stage.hang_up("ann")
    stage.hang_up("bob")
    assert len(stage.all(do.ReportProblem)) == 1


def test_a_recording_of_which_asterisk_never_says_that_it_stopped(stage: Stage) -> None:
    stage.call("ann", stay(record=True))
    bridge = stage.bridge_id()
    stage.held = {do.StopRecording}
    stage.hang_up("ann")
    stage.pass_time(4.999)
    assert do.DestroyBridge(bridge) not in stage.effects
    stage.pass_time(0.001)
    assert do.DestroyBridge(bridge) in stage.effects
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
    stage.tell(ev.EffectFailed(effect, "no folder", refused=True))
    ((_, problem),) = stage.problems()
    assert "recording id" in problem and "could not be started: no folder" in problem
    assert stage.hears("ann") == {"bob"}
    stage.hang_up("ann", "bob")
    assert not stage.engine.conferences
    assert stage.all(do.StoreRecording) == stage.all(do.StopRecording) == [], "there is nothing to store"
