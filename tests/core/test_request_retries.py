"""Failed requests to Asterisk are repeated: no member who is out hears or is heard, and nothing is left."""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.bounds import MAX_RETRIES_PER_TARGET
from ari_conf.core.conferences.conference import REMOVAL_AGAIN_MS, REMOVALS
from ari_conf.core.elements import Play, Speak, Wait
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.recording import RecordingState
from ari_conf.core.request_retries import RequestRetries
from tests.core.stage import START, Stage, players, stay

GIVEN_UP_S = (REMOVALS + 1) * REMOVAL_AGAIN_MS / 1000
HOURS = 3600


def command(stage: Stage, wanted: api.ConferenceCommand) -> None:
    stage.tell(
        ev.CommandReceived(f"command{len(stage.effects)}", api.ForConference("A", "standup", wanted), stage.now + 5000)
    )


def asked(stage: Stage, kind: type[Any]) -> int:
    return len(stage.all(kind))


# A member who leaves.

LEAVES: dict[str, Any] = {
    "kick": lambda stage: command(stage, api.Kick((2,))),
    "star": lambda stage: stage.press("bob", "*"),
    "host_left": lambda stage: stage.hang_up("ann"),
}


def together(stage: Stage) -> str:
    stage.call("ann", stay(end_conference_on_exit=True))
    stage.call("bob", stay(hangup_on_star=True), Wait(HOURS))
    stage.call("cid", stay(), Wait(HOURS))
    return stage.bridge_id()


@pytest.mark.parametrize("times", [1, 2, 10, 100])
@pytest.mark.parametrize("how", ["kick", "star", "host_left"])
def test_a_member_whose_removal_fails_is_out_in_the_end_and_not_before(stage: Stage, how: str, times: int) -> None:
    bridge = together(stage)
    stage.failing[do.RemoveChannel] = times
    LEAVES[how](stage)
    for _ in range(2 * times + 10):
        channel = stage.asterisk.channels["bob"]
        is_out = f"exit bob {how}" in stage.callback_texts()
        assert is_out == (channel.bridge is None), "their exit is told when they are out"
        if not is_out:
            assert channel.muted and channel.deaf, "neither heard by the others, nor hearing them"
        stage.pass_time(5)
    assert stage.callback_texts().count(f"exit bob {how}") == 1
    bob = stage.asterisk.channels["bob"]
    assert (bob.bridge, bob.muted, bob.deaf) == (None, False, False)
    assert bridge not in stage.asterisk.bridges or "bob" not in stage.asterisk.bridges[bridge].channels
    reported = [text for _, text in stage.problems() if "could not be removed from the conference yet" in text]
    assert len(reported) <= 2, "told once each"


def test_the_document_goes_on_when_they_are_out(stage: Stage) -> None:
    players(stage, "ann")
    stage.call("bob", stay(hangup_on_star=True), Speak("next"))
    stage.failing[do.RemoveChannel] = 4
    stage.press("bob", "*")
    stage.pass_time(10)
    assert stage.media("bob") == [] and stage.callback_texts()[-1] == "enter bob"
    stage.pass_time(10)
    assert stage.media("bob") == ["next"] and stage.callback_texts()[-1] == "exit bob star"


def test_a_member_who_can_never_be_removed_is_hung_up(stage: Stage) -> None:
    together(stage)
    stage.failing[do.RemoveChannel] = 10_000
    command(stage, api.Kick((2,)))
    stage.pass_time(GIVEN_UP_S - 10)
    assert "bob" in stage.asterisk.channels
    stage.pass_time(10)
    assert "bob" not in stage.asterisk.channels and stage.callback_texts()[-1] == "exit bob kick"
    assert stage.call_of("bob") is None and stage.hears("ann") == {"cid"}


def test_requests_are_retried_every_few_seconds(stage: Stage) -> None:
    together(stage)
    stage.failing[do.RemoveChannel] = 10_000
    command(stage, api.Kick((2,)))
    stage.pass_time(60)
    assert 10 <= asked(stage, do.RemoveChannel) <= 15


def test_a_member_who_hangs_up_while_it_is_tried_is_out_at_once(stage: Stage) -> None:
    together(stage)
    stage.failing[do.RemoveChannel] = 10_000
    command(stage, api.Kick((2,)))
    stage.pass_time(4)
    stage.hang_up("bob")
    assert stage.callback_texts()[-1] == "exit bob kick"
    before = asked(stage, do.RemoveChannel)
    stage.pass_time(60)
    assert asked(stage, do.RemoveChannel) == before


def test_a_member_who_could_not_be_added_is_taken_out_all_the_same(stage: Stage) -> None:
    """Nobody knows whether Asterisk added the member before its response was lost."""
    players(stage, "ann")
    stage.held = {do.AddChannel}
    stage.call("bob", stay(), Wait(HOURS))
    added = stage.give_up()
    stage.failing[do.RemoveChannel] = 3
    stage.tell(ev.EffectFailed(added, "no answer in time"))
    stage.asterisk.obey(added)
    stage.go_on()
    assert stage.callback_texts() == ["enter ann", "enter bob"] and stage.hears("ann") == set()
    stage.pass_time(6)
    assert stage.callback_texts() == ["enter ann", "enter bob"] and stage.hears("ann") == set()
    stage.pass_time(20)
    assert stage.callback_texts()[-1] == "exit bob conference_ended" and stage.asterisk.channels["bob"].bridge is None


def test_a_member_who_could_not_be_added_and_hangs_up_has_hung_up(stage: Stage) -> None:
    players(stage, "ann")
    stage.held = {do.AddChannel}
    stage.call("bob", stay(), Wait(HOURS))
    added = stage.give_up()
    stage.tell(ev.EffectFailed(added, "Channel not in Stasis application", target_gone=True))
    assert stage.callback_texts() == ["enter ann", "enter bob"]
    stage.hang_up("bob")
    assert stage.callback_texts()[-1] == "exit bob hangup"


def test_event_before_the_failure_is_kept(stage: Stage) -> None:
    players(stage, "ann", "bob", record=True)
    stage.talk("bob")
    stage.pass_time(2)
    stage.failing[do.RemoveChannel] = 1
    command(stage, api.Kick((2,)))
    stage.pass_time(5)
    assert [(n.start_ms - START, n.end_ms - START) for n in stage.all(do.AddSpeechNote)] == [(0, 2000)]


# A failure that comes late.


def test_the_late_failure_of_an_earlier_stay_is_not_the_next_ones(stage: Stage) -> None:
    players(stage, "ann")
    stage.call("bob", stay(hangup_on_star=True), stay())
    earlier = do.RemoveChannel("bob", stage.bridge_id(), member_id=2)
    stage.press("bob", "*")
    assert stage.callback_texts()[-2:] == ["exit bob star", "enter bob"]
    stage.held = {do.RemoveChannel}
    command(stage, api.Kick((3,)))
    for gone in (True, False):
        assert stage.tell(ev.EffectFailed(earlier, "late", gone)) == []
    assert stage.hears("ann") == {"bob"} and stage.callback_texts()[-1] == "enter bob", (
        "still in, until Asterisk says otherwise"
    )


def recorded(stage: Stage, recording_id: str) -> None:
    command(stage, api.Record(recording_id))


def test_the_late_failure_of_one_recordings_stop_leaves_the_next_one_alone(stage: Stage) -> None:
    players(stage, "ann")
    recorded(stage, "first")
    stage.held = {do.StopRecording}
    command(stage, api.StopRecording())
    stage.pass_time(6)
    first = stage.give_up()
    stage.asterisk.obey(first)
    stage.go_on()
    recorded(stage, "second")
    conference = stage.conference()
    assert conference is not None and conference.newest_recording is not None
    for gone in (True, False):
        stage.tell(ev.EffectFailed(first, "late", gone))
    assert (conference.newest_recording.recording_id, conference.newest_recording.state) == (
        "second",
        RecordingState.RUNNING,
    )
    assert [effect.recording_id for effect in stage.all(do.StoreRecording)] == ["first"]


@pytest.mark.parametrize("kind", [do.StartRecording, do.StopRecording])
@pytest.mark.parametrize("gone", [True, False])
def test_news_of_an_earlier_recording_is_not_the_next_ones(
    stage: Stage, kind: type[do.StartRecording | do.StopRecording], gone: bool
) -> None:
    players(stage, "ann")
    recorded(stage, "first")
    command(stage, api.StopRecording())
    recorded(stage, "second")
    conference = stage.conference()
    assert conference is not None and conference.newest_recording is not None
    bridge = conference.bridge_id
    stage.tell(
        ev.EffectFailed(kind(bridge, "first", "A"), "late", gone, refused=True),
        ev.RecordingStarted(conference.conference_id, "first"),
        ev.RecordingFinished(conference.conference_id, "first", failed=True),
    )
    recording = conference.newest_recording
    assert (recording.recording_id, recording.state) == (
        "second",
        RecordingState.RUNNING,
    ) and not recording.may_have_no_file
    assert not [text for _, text in stage.problems() if "recording" in text]


def test_late_news_of_an_earlier_sound_is_not_the_next_ones(stage: Stage) -> None:
    stage.call("ann", Play("one"), Play("two"))
    (one,) = stage.all(do.PlayMedia)
    stage.finish("ann")
    two = stage.all(do.PlayMedia)[-1]
    late = [
        ev.EffectFailed(one, "late"),
        ev.PlaybackFinished(one.playback_id),
        ev.PlaybackFinished(one.playback_id, failed=True),
        ev.SoundFailed(one.playback_id, Play("one"), ProblemKind.SOUND_UNPLAYABLE, "late"),
        ev.SoundPrepared(one.playback_id, "elsewhere"),
    ]
    stage.tell(*late)
    assert stage.hears("ann") == {two.playback_id}


def test_late_news_of_an_earlier_question_is_not_the_next_ones(stage: Stage) -> None:
    """A wait sound's document held no sound, and was requested again."""
    stage.sounds["http://w.example/"] = ()
    stage.call("ann", stay(start_conference_on_enter=False, wait_sound="http://w.example/"))
    stage.held = {do.FetchSoundDocument}
    stage.pass_time(5)
    earlier, now = stage.all(do.FetchSoundDocument)
    for late in (
        ev.SoundDocumentFailed(earlier.fetch_id, ProblemKind.SOUND_DOCUMENT_FAILED, "late"),
        ev.SoundDocumentFetched(earlier.fetch_id, (Play("old"),)),
    ):
        assert stage.tell(late) == []
    stage.held, stage.waiting = set(), []
    stage.tell(ev.SoundDocumentFetched(now.fetch_id, (Play("new"),)))
    assert stage.media("ann") == ["new"]


def test_late_news_of_an_earlier_conference_is_not_the_next_ones(stage: Stage) -> None:
    players(stage, "ann")
    earlier, bridge = stage.conference_id(), stage.bridge_id()
    stage.hang_up("ann")
    stage.held = {do.ClaimName}
    players(stage, "bob")
    late = [
        ev.NameClaimed(earlier), ev.NameTaken(earlier, "another"), ev.BridgeCreated(bridge),
        ev.BridgeDestroyed(bridge), ev.EffectFailed(do.ClaimName("A", "standup", earlier), "late"),
        ev.EffectFailed(do.CreateBridge(bridge), "late"), ev.EffectFailed(do.DestroyBridge(bridge), "late", True),
    ]  # fmt: skip
    assert stage.tell(*late) == []
    stage.let_go()
    assert stage.hears("bob") == set() and stage.callback_texts()[-1] == "enter bob"


def test_talk_of_a_time_when_nobody_listened_is_not_taken_for_now(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.tell(ev.AccountWatched("A", stage.now + 1000))
    stage.pass_time(2)
    stage.talk("ann")
    conference = stage.conference()
    assert conference is not None and conference.floor is None
    assert not any(member.talking for member in conference.members.values())


# A call, a bridge.


@pytest.mark.parametrize("times", [1, 2, 3, 30])
def test_a_call_that_is_to_be_hung_up_is_in_the_end(times: int) -> None:
    stage = Stage(hangup_url="http://hangup.example/")
    stage.call("ann", Wait(1))
    stage.failing[do.HangUp] = times
    stage.pass_time(4)
    assert "ann" in stage.asterisk.channels and stage.call_of("ann") is not None
    stage.pass_time(times * 60 + 60)
    assert stage.hangup_request("ann")["HangupCauseCode"] == "4010"
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("times", [1, 3, 30])
def test_a_bridge_that_is_to_be_destroyed_is_in_the_end_and_its_name_is_free_at_once(stage: Stage, times: int) -> None:
    players(stage, "ann", record=True)
    earlier = stage.bridge_id()
    stage.failing[do.DestroyBridge] = times
    stage.hang_up("ann")
    assert earlier in stage.asterisk.bridges and asked(stage, do.ReleaseName) == 1
    players(stage, "bob")
    assert stage.bridge_id() != earlier
    stage.pass_time(times * 60 + 60)
    assert set(stage.asterisk.bridges) == {stage.bridge_id()}
    assert set(stage.engine.conferences) == {stage.conference_id()}
    assert asked(stage, do.DestroyBridge) == times + 1


def test_a_bridge_without_a_result_is_requested_again(stage: Stage) -> None:
    players(stage, "ann")
    stage.held = {do.DestroyBridge}
    stage.hang_up("ann")
    stage.give_up()
    stage.pass_time(6)
    stage.assert_nothing_is_left()


def test_a_bridge_of_which_it_is_not_known_whether_it_was_made_is_destroyed_in_the_end(stage: Stage) -> None:
    stage.held = {do.CreateBridge}
    players(stage, "ann")
    made = stage.give_up()
    stage.asterisk.obey(made)
    stage.failing[do.DestroyBridge] = 4
    stage.tell(ev.EffectFailed(made, "no answer in time"))
    stage.pass_time(300)
    stage.assert_nothing_is_left()


def test_a_call_that_is_refused_is_hung_up_in_the_end(stage: Stage) -> None:
    """The engine does not know the call, and nobody waits for its end."""
    stage.engine.calls_per_account = 1
    stage.call("ann", Wait(HOURS))
    stage.failing[do.HangUp] = 3
    stage.call("bob", Wait(HOURS))
    assert "bob" in stage.asterisk.channels and stage.call_of("bob") is None
    stage.pass_time(60)
    assert set(stage.asterisk.channels) == {"ann"} and asked(stage, do.HangUp) == 4
    assert stage.all(do.HangUp)[-1] == do.HangUp("bob", "busy")
    stage.pass_time(HOURS - 100)
    assert asked(stage, do.HangUp) == 4 and stage.engine.registry.retries == RequestRetries()


def test_a_bridge_of_nobody_is_destroyed_in_the_end(stage: Stage) -> None:
    players(stage, "ann")
    stage.asterisk.obey(do.CreateBridge("orphan"))
    stage.failing[do.DestroyBridge] = 3
    stage.carry_out(stage.engine.replay([do.DestroyBridge("orphan")], stage.now))
    stage.pass_time(60)
    assert set(stage.asterisk.bridges) == {stage.bridge_id()} and asked(stage, do.DestroyBridge) == 4


def test_old_request_without_a_failure_counts_as_done() -> None:
    retries = RequestRetries()
    retries.failed(do.HangUp("ann"), START)
    assert retries.due(START + 5000) == [do.HangUp("ann")]
    retries.failed(do.HangUp("bob"), START + 700_000)
    assert retries.due(START + 705_000) == [do.HangUp("bob")]
    assert "ann" not in retries._by_target


# A channel's settings.

HELD_SOUND = "http://sounds.example/hold"


def muted(stage: Stage) -> bool:
    return stage.asterisk.channels["ann"].muted


def deaf(stage: Stage) -> bool:
    return stage.asterisk.channels["ann"].deaf


def music(stage: Stage) -> bool:
    return stage.asterisk.channels["ann"].music


def listened_to(stage: Stage) -> bool:
    return stage.asterisk.channels["ann"].silence_ms is not None


SETTINGS: list[tuple[type[Any], Any, api.ConferenceCommand, api.ConferenceCommand]] = [
    (do.MuteChannel, muted, api.Mute((1,), True), api.Mute((1,), False)),
    (do.DeafenChannel, deaf, api.Deafen((1,), True), api.Deafen((1,), False)),
    (do.StartMusic, music, api.Hold((1,), True), api.Hold((1,), False)),
    (do.StopMusic, music, api.Hold((1,), True), api.Hold((1,), False)),
]


@pytest.mark.parametrize("times", [1, 3, 12])
@pytest.mark.parametrize(("kind", "is_so", "on", "off"), SETTINGS)
def test_a_setting_that_fails_is_so_in_the_end(
    stage: Stage, kind: type[Any], is_so: Any, on: api.ConferenceCommand, off: api.ConferenceCommand, times: int
) -> None:
    players(stage, "ann", "bob")
    stage.failing[kind] = times
    command(stage, on)
    stage.pass_time(times * 65)
    assert is_so(stage)
    stage.failing[kind] = times
    command(stage, off)
    stage.pass_time(times * 65)
    assert not is_so(stage)
    assert stage.hears("ann") == {"bob"}
    before = asked(stage, kind)
    stage.pass_time(HOURS)
    assert asked(stage, kind) == before, "what is done is not asked for again"


def test_a_failed_request_that_is_not_needed_any_more_is_not_retried(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.failing[do.MuteChannel] = 1
    command(stage, api.Mute((1,), True))
    command(stage, api.Mute((1,), False))
    stage.pass_time(60)
    assert not muted(stage)
    assert all(not e.muted for e in stage.all(do.MuteChannel)[1:])


def test_after_a_stay_the_call_is_neither_muted_nor_deaf_nor_listened_to_in_the_end(stage: Stage) -> None:
    stage.call("ann", stay(muted=True, hangup_on_star=True, floor_event=True), Wait(HOURS))
    players(stage, "bob")
    command(stage, api.Deafen((1,), True))
    stage.failing.update({do.MuteChannel: 2, do.DeafenChannel: 3, do.DetectTalking: 4})
    stage.press("ann", "*")
    assert muted(stage) and deaf(stage) and listened_to(stage)
    stage.pass_time(300)
    assert not (muted(stage) or deaf(stage) or listened_to(stage))


def test_talking_is_listened_for_in_the_end(stage: Stage) -> None:
    stage.failing[do.DetectTalking] = 3
    players(stage, "ann", "bob", floor_event=True)
    stage.pass_time(120)
    assert listened_to(stage) and stage.asterisk.channels["bob"].silence_ms == 500


def test_a_wait_for_silence_listens_in_the_end_and_nobody_listens_after_it(stage: Stage) -> None:
    stage.failing[do.DetectTalking] = 1
    stage.call("ann", Wait(30, silence=True, min_silence=20_000), Wait(HOURS))
    stage.pass_time(7)
    assert stage.asterisk.channels["ann"].silence_ms == 20_000
    stage.failing[do.DetectTalking] = 2
    stage.pass_time(60)
    assert not listened_to(stage)


@pytest.mark.parametrize("times", [1, 5])
def test_a_sound_that_is_to_end_ends(stage: Stage, times: int) -> None:
    players(stage, "ann", "bob")
    command(stage, api.PlayToMembers((1,), Play("long")))
    command(stage, api.Announce(Play("to all")))
    stage.failing[do.StopPlayback] = 2 * times
    command(stage, api.StopPlaying((1,), "Play"))
    command(stage, api.StopAnnouncing())
    assert len(stage.asterisk.playbacks) == 2
    stage.pass_time(times * 65)
    assert not stage.asterisk.playbacks
    before = asked(stage, do.StopPlayback)
    stage.pass_time(HOURS)
    assert asked(stage, do.StopPlayback) == before


@pytest.mark.parametrize("where", ["ann", "standup"])
def test_a_sound_of_which_it_is_not_known_whether_it_began_is_stopped(stage: Stage, where: str) -> None:
    stage.call("ann", stay(), Wait(HOURS))
    stage.held = {do.PlayMedia}
    command(stage, api.PlayToMembers((1,), Play("long")) if where == "ann" else api.Announce(Play("long")))
    asked_for = stage.give_up()
    stage.asterisk.obey(asked_for)
    stage._events.clear()
    stage.failing[do.StopPlayback] = 2
    stage.tell(ev.EffectFailed(asked_for, "no answer in time"))
    assert stage.asterisk.playbacks
    stage.pass_time(60)
    assert not stage.asterisk.playbacks


def test_a_sound_that_asterisk_refuses_is_passed_over_and_no_more(stage: Stage) -> None:
    stage.held = {do.PlayMedia}
    stage.call("ann", Play("long"), Speak("next"))
    refused = stage.give_up()
    stage.tell(ev.EffectFailed(refused, "no", refused=True))
    assert stage.media("ann")[-1] == "next" and asked(stage, do.StopPlayback) == 0


def test_a_sound_that_has_ended_by_itself_is_stopped_no_more(stage: Stage) -> None:
    players(stage, "ann", "bob")
    command(stage, api.PlayToMembers((1,), Play("short")))
    stage.failing[do.StopPlayback] = 1
    command(stage, api.StopPlaying((1,), "Play"))
    stage.finish("ann")
    stage.pass_time(HOURS)
    assert asked(stage, do.StopPlayback) == 2, "the second time Asterisk says that there is none"


@pytest.mark.parametrize("times", [1, 5])
def test_a_recording_that_is_to_end_ends_also_if_another_was_begun(stage: Stage, times: int) -> None:
    players(stage, "ann")
    recorded(stage, "first")
    stage.failing[do.StopRecording] = times
    command(stage, api.StopRecording())
    stage.pass_time(times * 65)
    assert not stage.asterisk.recordings
    assert [effect.recording_id for effect in stage.all(do.StoreRecording)] == ["first"]


def test_requests_about_a_gone_channel_are_forgotten(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.failing[do.MuteChannel] = 1
    command(stage, api.Mute((1,), True))
    stage.tell(ev.ChannelHungUp("ann", 16))
    assert not stage.engine.registry.retries._by_target
    before = len(stage.effects)
    stage.pass_time(60)
    assert stage.effects[before:] == []


def test_of_one_channel_no_more_is_kept_than_is_bounded() -> None:
    retries = RequestRetries()
    for n in range(3 * MAX_RETRIES_PER_TARGET):
        retries.failed(do.StopPlayback(do.Target("channel", "ann"), f"p{n}"), START)
    found = retries.due(START + 60_000)
    assert len(found) == MAX_RETRIES_PER_TARGET and found[-1].playback_id == f"p{3 * MAX_RETRIES_PER_TARGET - 1}"  # type: ignore[union-attr]


def test_retries_are_spread_over_several_steps() -> None:
    retries = RequestRetries()
    for n in range(450):
        retries.failed(do.StopMusic(f"channel{n}"), START)
    asked, now = [], START
    while retries.at is not None:
        assert retries.at > now
        now = retries.at
        asked.append(len(retries.due(now)))
    assert asked == [200, 200, 50]
