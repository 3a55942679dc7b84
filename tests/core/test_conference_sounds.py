"""enterSound, exitSound, and what sound documents hold. Each play quotes the sentence that it checks."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Speak, Wait
from tests.core.stage import MUSIC, Stage, players, stay, waiting

# enterSound, exitSound.


@pytest.mark.parametrize("sound", ["beep:1", "beep:2", "http://sounds.example/gong"])
def test_the_enter_sound_is_played_to_the_whole_conference(stage: Stage, sound: str) -> None:
    """ "played to the whole conference when this member enters" """
    stage.sounds[sound] = (Play("gong"),)
    stage.call("ann", stay())
    stage.call("bob", stay(enter_sound=sound))
    assert stage.media(stage.bridge_id()) == ["gong" if sound.startswith("http") else sound]


@pytest.mark.parametrize("sound", ["beep:1", "beep:2", "http://sounds.example/gong"])
def test_the_exit_sound_is_played_to_those_who_remain(stage: Stage, sound: str) -> None:
    """Spec: played to those who remain when this member leaves; the exit sound is ready when they leave."""
    stage.sounds[sound] = (Play("gong"),)
    stage.call("ann", stay())
    stage.call("bob", stay(exit_sound=sound))
    assert len(stage.all(do.FetchSoundDocument)) == sound.startswith("http")
    stage.hang_up("bob")
    assert stage.media(stage.bridge_id()) == ["gong" if sound.startswith("http") else sound]
    assert len(stage.all(do.FetchSoundDocument)) == sound.startswith("http")


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
    assert stage.media(stage.bridge_id()) == ["beep:2"]


def test_joining_never_waits_for_the_sounds(stage: Stage) -> None:
    """ "URLs are fetched while the member joins, so that joining never waits for them" """
    stage.held = {do.FetchSoundDocument}
    stage.sounds[MUSIC] = (Play("gong"),)
    stage.call("ann", stay())
    stage.call("bob", stay(enter_sound=MUSIC))
    assert stage.hears("ann") == {"bob"}
    stage.let_go()
    assert stage.media(stage.bridge_id()) == ["gong"]


def test_a_member_hangs_up_during_the_enter_sound(stage: Stage) -> None:
    players(stage, "ann")
    stage.call("bob", stay(enter_sound="beep:2", exit_sound="beep:1"))
    stage.hang_up("bob")
    stage.finish(stage.bridge_id())
    stage.hang_up("ann")
    stage.assert_nothing_is_left()


def test_a_leaving_member_does_not_hear_their_exit_sound(stage: Stage) -> None:
    stage.call("ann", stay())
    stage.call("bob", stay(exit_sound="beep:1", hangup_on_star=True), Wait(9))
    stage.press("bob", "*")
    removed = stage.effects.index(do.RemoveChannel("bob", stage.bridge_id(), member_id=2))
    (sound,) = [n for n, e in enumerate(stage.effects) if isinstance(e, do.PlayMedia)]
    assert removed < sound
    assert stage.hears("bob") == set()


# Sound documents.


def test_the_request_of_a_sound_document(stage: Stage) -> None:
    """ "standard parameters, ConferenceName, `Event=ConferenceRemoteSounds`, and `ConferenceAction`" """
    stage.call("ann", stay(enter_sound="http://s/1", exit_sound="http://s/2", wait_sound="http://s/3"))
    asked = {dict(e.params)["ConferenceAction"]: e for e in stage.all(do.FetchSoundDocument)}
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
    assert len(stage.all(do.FetchSoundDocument)) == 1


def test_it_is_requested_again_only_when_the_document_held_no_sound(stage: Stage) -> None:
    """ "and is asked for again only when the document held no sound" """
    stage.sounds[MUSIC] = ()
    stage.call("ann", waiting(wait_sound=MUSIC))
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.pass_time(5)
    assert stage.media("ann") == ["jazz"]
    assert len(stage.all(do.FetchSoundDocument)) == 2


def test_a_wait_sound_that_cannot_be_played_is_requested_again(stage: Stage) -> None:
    stage.sounds[MUSIC] = (Play("broken"),)
    stage.call("ann", waiting(wait_sound=MUSIC))
    assert stage.problems() == [(None, "broken")]
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.pass_time(5)
    assert stage.media("ann") == ["jazz"]


def test_a_wait_sound_that_asterisk_can_not_play_is_requested_again(stage: Stage) -> None:
    stage.held = {do.PlayMedia}
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", waiting(wait_sound=MUSIC))
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "no such format"))
    assert stage.hears("ann") == set()
    stage.pass_time(5)
    assert len(stage.hears("ann")) == 1


def test_a_fetch_that_fails_means_no_sound_and_a_warning(stage: Stage) -> None:
    """ "A fetch that fails means no sound (waiting for the start: default music) and a warning." """
    stage.call("ann", waiting(wait_sound="http://s/1"))
    assert stage.hears("ann") == {"music"}
    stage.call("bob", stay("other", wait_sound="http://s/1", enter_sound="http://s/2", exit_sound="http://s/3"))
    assert stage.hears("bob") == set() == set(stage.media("bob"))
    texts = [text for _, text in stage.problems()]
    assert texts == [
        "waitSound: it is away",
        "enterSound: it is away",
        "exitSound: it is away",
        "waitSound: it is away",
    ]


def test_the_document_comes_when_it_is_no_longer_needed(stage: Stage) -> None:
    stage.held = {do.FetchSoundDocument}
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", waiting(wait_sound=MUSIC))
    players(stage, "host")
    stage.let_go()
    assert stage.hears("ann") == {"host"}
    stage.hang_up("host")
    assert stage.media("ann") == ["jazz"], "and serves when ann is alone"


def test_an_announcement_of_two_sounds_in_order(stage: Stage) -> None:
    """ "whose Play, Speak and Wait run in order" """
    stage.sounds[MUSIC] = (Speak("now comes"), Wait(1), Play("name"))
    stage.call("ann", stay(enter_sound=MUSIC))
    bridge = stage.bridge_id()
    stage.finish(bridge)
    stage.pass_time(1)
    assert stage.media(bridge) == ["now comes", "name"]
