"""The order at leaving, and what may go wrong. Each play quotes the sentence that it checks."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import GetDigits, Hangup, Speak
from tests.core.stage import ACTION, Stage, players, stay

# Leaving.


def test_the_order_at_leaving(stage: Stage) -> None:
    """Spec: the member is out of the mix; exit callback; exitSound to those who remain; their action is requested."""
    stage.call("ann", stay())
    stage.call("bob", stay(exit_sound="beep:1", action=ACTION, hangup_on_star=True))
    stage.held = {do.RemoveChannel}
    stage.press("bob", "*")
    assert stage.callback_texts()[2:] == [], "bob is still in the mix"
    before = len(stage.effects)
    stage.let_go()
    kinds = [
        type(e) for e in stage.effects[before:] if isinstance(e, do.PostCallback | do.PrepareSound | do.FetchDocument)
    ]
    assert kinds[:3] == [do.PostCallback, do.PrepareSound, do.FetchDocument]


def test_an_unreported_removal_is_requested_again_until_it_is_known(
    stage: Stage,
) -> None:
    stage.call("ann", stay(hangup_on_star=True), Speak("next"))
    stage.held = {do.RemoveChannel}
    stage.press("ann", "*")
    stage.pass_time(3)
    assert len(stage.all(do.RemoveChannel)) == 2 and stage.callback_texts() == ["enter ann"]
    stage.let_go()
    assert stage.callback_texts()[-1] == "exit ann star" and stage.media("ann") == ["next"]


def test_a_member_whose_removal_fails_is_released_immediately(stage: Stage) -> None:
    stage.call("ann", stay(hangup_on_star=True), Speak("next"))
    stage.held = {do.RemoveChannel}
    stage.press("ann", "*")
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "Channel not in this bridge", target_gone=True))
    assert stage.callback_texts()[-1] == "exit ann star"


def test_every_leaver_gets_one_exit_also_when_it_ends_for_all(stage: Stage) -> None:
    """ "every leaver gets one, also when the conference ends for all" """
    stage.call("host", stay(end_conference_on_exit=True))
    names = [f"m{n}" for n in range(5)]
    players(stage, *names)
    stage.asterisk.hang_up("host")
    stage.asterisk.hang_up("m3")
    stage.go_on()
    exits = [t.split()[1] for t in stage.callback_texts() if t.startswith("exit")]
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
    assert stage.callback_texts() == ["enter ann", "exit ann hangup"]
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("news_first", [True, False])
def test_a_caller_hangs_up_while_joining(stage: Stage, news_first: bool) -> None:
    stage.held = {do.AddChannel}
    players(stage, "ann")
    stage.asterisk.hang_up("ann")
    if news_first:
        stage.go_on()
    stage.let_go()
    assert stage.callback_texts() == ["enter ann", "exit ann hangup"]
    stage.pass_time(5)
    stage.assert_nothing_is_left()


def test_asterisk_can_not_add_the_channel(stage: Stage) -> None:
    stage.held = {do.AddChannel}
    stage.call("ann", stay(), Speak("next"))
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "no answer in time"))
    stage.pass_time(3)
    assert stage.callback_texts() == ["enter ann", "exit ann conference_ended"]
    assert (None, "no answer in time") in stage.problems()
    assert stage.media("ann") == ["next"]


def test_the_bridge_can_not_be_made(stage: Stage) -> None:
    stage.held = {do.CreateBridge}
    stage.call("ann", stay(), Speak("next"))
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "no memory"))
    assert stage.callback_texts() == ["enter ann", "exit ann conference_ended"]
    assert stage.problems() == [(None, "no memory")] and stage.media("ann") == ["next"]
    assert not stage.engine.conferences


def test_the_bridge_is_destroyed_from_outside(stage: Stage) -> None:
    for name in ("ann", "bob"):
        stage.call(name, stay(record=True), Speak("next"))
    stage.asterisk.destroy(stage.bridge_id())
    stage.go_on()
    assert stage.callback_texts()[2:] == ["exit ann conference_ended", "exit bob conference_ended"]
    assert stage.media("ann") == stage.media("bob") == ["next"]
    assert not stage.engine.conferences


def test_the_call_is_ended_by_its_schedule_and_asterisk_says_nothing(stage: Stage) -> None:
    stage.call("ann", Hangup(schedule=10), stay())
    stage.held = {do.HangUp}
    stage.pass_time(10)
    stage.pass_time(600)
    assert stage.callback_texts() == ["enter ann"], "the call is still there, and in the conference"
    stage.let_go()
    assert stage.callback_texts() == ["enter ann", "exit ann hangup"]
    assert not stage.engine.calls and not stage.engine.conferences


def test_the_channel_is_gone_when_it_is_to_be_hung_up(stage: Stage) -> None:
    stage.call("ann", Hangup(schedule=10), stay())
    stage.held = {do.HangUp}
    stage.pass_time(10)
    stage.tell(ev.EffectFailed(do.HangUp("ann"), "Channel not found", target_gone=True))
    assert stage.callback_texts() == ["enter ann", "exit ann hangup"]


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
    assert stage.callback_texts() == ["enter ann"]
    assert dict(stage.all(do.FetchDocument)[-1].params)["Digits"] == "1234"
