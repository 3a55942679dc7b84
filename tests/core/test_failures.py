"""What goes wrong around the core, and that nobody waits for ever, and nothing stays in Asterisk without us."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Redirect, Speak, Wait
from tests.core.stage import MUSIC, Stage, stay

NEXT = "http://document.example/next"


def fails(stage: Stage, kind: type[do.Effect], gone: bool = False) -> None:
    """What was held back of that kind could not be done."""
    (effect,) = [e for e in stage.waiting if isinstance(e, kind)]
    stage.waiting = [e for e in stage.waiting if e is not effect]
    stage.held -= {kind}
    stage.tell(ev.EffectFailed(effect, "it broke", gone))


@pytest.mark.parametrize("kind", [do.IdentifyCall, do.FetchDocument])
def test_a_call_of_which_nothing_can_be_learnt_is_ended(stage: Stage, kind: type[do.Effect]) -> None:
    stage.held = {kind}
    stage.call("ann", Wait(60))
    fails(stage, kind)
    assert any("it broke" in text for _, text in stage.problems())
    assert stage.codes() == [7011]
    assert "ann" not in stage.asterisk.channels and not stage.directory.calls


def test_a_sound_whose_making_broke_is_passed_over(stage: Stage) -> None:
    stage.held = {do.PrepareSound}
    stage.call("ann", Play("song"), Speak("next"))
    fails(stage, do.PrepareSound)
    assert stage.media("ann") == ["next"]


def test_a_sound_document_whose_asking_broke_means_no_sound(stage: Stage) -> None:
    stage.held = {do.FetchSounds}
    stage.call("ann", stay(wait_sound=MUSIC, start_conference_on_enter=False))
    fails(stage, do.FetchSounds)
    assert stage.hears("ann") == {"music"}


def test_a_name_whose_claim_broke_is_passed_over(stage: Stage) -> None:
    stage.held = {do.ClaimName}
    stage.call("ann", stay(), Speak("next"))
    fails(stage, do.ClaimName)
    assert stage.media("ann") == ["next"] and not stage.directory.conferences


def test_who_could_not_be_hung_up_is_tried_again(stage: Stage) -> None:
    stage.held = {do.HangUp}
    stage.call("ann")
    fails(stage, do.HangUp)
    assert "ann" in stage.asterisk.channels and stage.directory.calls
    stage.pass_time(5)
    assert "ann" not in stage.asterisk.channels and not stage.directory.calls


def test_a_bridge_that_could_not_be_destroyed_is_tried_again(stage: Stage) -> None:
    stage.call("ann", stay())
    stage.held = {do.DestroyBridge}
    stage.hang_up("ann")
    fails(stage, do.DestroyBridge)
    assert stage.asterisk.bridges and stage.told()[-1] == "exit ann hangup"
    stage.pass_time(5)
    assert not stage.asterisk.bridges and not stage.directory.conferences


@pytest.mark.parametrize("stays", [(), (Speak("one moment"),)])
def test_a_document_that_leads_to_itself_ends(stage: Stage, stays: tuple[Speak, ...]) -> None:
    stage.documents[NEXT] = (*stays, Redirect(NEXT))
    stage.call("ann", Redirect(NEXT))
    while stage.asterisk.playbacks:
        stage.finish("ann")
    code, text = stage.problems()[-1]
    assert code == 8014 and "20 documents in a row" in text
    assert "ann" not in stage.asterisk.channels and len(stage.all(do.FetchDocument)) < 30


def test_a_document_that_takes_its_time_may_lead_to_itself(stage: Stage) -> None:
    stage.documents[NEXT] = (Wait(1), Redirect(NEXT))
    stage.call("ann", Redirect(NEXT))
    stage.pass_time(100)
    assert "ann" in stage.asterisk.channels and not stage.problems()
    assert len(stage.all(do.FetchDocument)) > 90
