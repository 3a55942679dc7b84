"""Wait with silence and beep, and late events about sounds that are no longer played."""

from __future__ import annotations

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Speak, Wait
from ari_conf.core.playback.player import Player
from tests.core.stage import Stage

CHANNEL = do.Target("channel", "ann")


def test_wait_ends_as_soon_as_so_much_silence_was_heard(stage: Stage) -> None:
    """ "silence=false: true ends the wait as soon as minSilence=2000 ms of silence was heard" """
    stage.call("ann", Wait(60, silence=True), Speak("next"))
    assert stage.all(do.DetectTalking) == [do.DetectTalking("ann", 2000)]
    stage.pass_time(1.999)
    assert stage.media("ann") == []
    stage.pass_time(0.001)
    assert stage.media("ann") == ["next"]
    assert stage.all(do.DetectTalking)[-1] == do.DetectTalking("ann", None)


def test_talking_puts_it_off_until_it_has_ended(stage: Stage) -> None:
    stage.call("ann", Wait(60, silence=True, min_silence=700), Speak("next"))
    stage.pass_time(0.6)
    stage.talk("ann")
    stage.pass_time(10)
    assert stage.media("ann") == []
    stage.fall_silent("ann")
    assert stage.media("ann") == ["next"]


def test_the_end_of_an_earlier_talk_is_not_silence_yet(stage: Stage) -> None:
    stage.call("ann", Wait(60, silence=True), Speak("next"))
    stage.fall_silent("ann")
    assert stage.media("ann") == []


def test_it_ends_after_its_length_at_the_latest(stage: Stage) -> None:
    stage.call("ann", Wait(5, silence=True), Speak("next"))
    stage.talk("ann")
    stage.pass_time(5)
    assert stage.media("ann") == ["next"]


def test_it_ends_at_a_voicemail_beep(stage: Stage) -> None:
    """ "beep=false: ends at a voicemail beep" """
    stage.call("ann", Wait(60, beep=True), Speak("next"))
    assert stage.all(do.DetectBeep) == [do.DetectBeep("ann", True, "call-ann")]
    stage.tell(ev.BeepHeard("ann"))
    assert stage.media("ann") == ["next"]
    assert stage.all(do.DetectBeep)[-1] == do.DetectBeep("ann", False, "call-ann")


def test_a_beep_counts_only_without_silence(stage: Stage) -> None:
    """ "(only without silence)" """
    stage.call("ann", Wait(60, beep=True, silence=True), Speak("next"))
    stage.tell(ev.BeepHeard("ann"))
    assert stage.media("ann") == [] and stage.all(do.DetectBeep) == []


def test_a_plain_wait_listens_to_nothing(stage: Stage) -> None:
    stage.call("ann", Wait(60), Speak("next"))
    stage.tell(ev.BeepHeard("ann"), ev.TalkingStarted("ann"), ev.TalkingFinished("ann"))
    assert stage.media("ann") == [] and stage.all(do.DetectTalking) == stage.all(do.DetectBeep) == []


def test_in_a_conferences_sounds_a_wait_is_only_a_pause() -> None:
    player = Player("m.id1.1.wait.1", CHANNEL, (Wait(3, silence=True, min_silence=500), Play("a")), endless=True)
    assert player.start(0) == []
    assert player.deadline == 3000


def test_stopped_while_it_plays_and_while_it_is_prepared() -> None:
    player = Player("c.1", CHANNEL, (Play("a"),))
    player.start(0)
    assert player.stop() == []
    assert player.handle_event(ev.SoundPrepared("c.1.1", "a"), 1) == []
    player = Player("c.2", CHANNEL, (Play("a"),))
    player.start(0)
    player.handle_event(ev.SoundPrepared("c.2.1", "a"), 1)
    assert player.stop() == [do.StopPlayback(CHANNEL, "c.2.1")]
    assert player.done and player.deadline is None


def test_events_of_another_playback_are_ignored() -> None:
    player = Player("c.1", CHANNEL, (Play("a", loop=0),))
    player.start(0)
    player.handle_event(ev.SoundPrepared("c.1.1", "a"), 1)
    (again,) = player.handle_event(ev.PlaybackFinished("c.1.1"), 2)
    assert isinstance(again, do.PlayMedia) and again.playback_id == "c.1.2"
    assert player.handle_event(ev.PlaybackFinished("c.1.1"), 3) == []


def test_one_that_fails_is_not_played_again() -> None:
    player = Player("c.1", CHANNEL, (Play("a", loop=0),))
    player.start(0)
    player.handle_event(ev.SoundPrepared("c.1.1", "a"), 1)
    assert player.handle_event(ev.PlaybackFinished("c.1.1", failed=True), 2) == []
    assert player.done


def test_an_endless_one_of_which_nothing_could_be_heard_ends() -> None:
    player = Player("m.1", CHANNEL, (Wait(1),), endless=True)
    player.start(0)
    player.handle_event(ev.DeadlineReached(), 1000)
    assert player.done


def test_a_sound_without_length_keeps_nobody_busy(stage: Stage) -> None:
    stage.call("ann", Play("click", loop=0))
    for _ in range(25):
        while stage.asterisk.playbacks:
            stage.finish("ann")
        stage.pass_time(0.2)
    assert len(stage.media("ann")) == 10 + 25
    stage.hang_up("ann")
    stage.assert_nothing_is_left()


def test_one_with_a_length_goes_on_without_a_pause(stage: Stage) -> None:
    stage.call("ann", Play("song", loop=0))
    for _ in range(30):
        stage.pass_time(1)
        stage.finish("ann")
    assert len(stage.media("ann")) == 31
