"""Failures around the core: nobody waits forever, and nothing that the engine does not know stays in Asterisk."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Redirect, Speak, Wait
from tests.core.stage import MUSIC, START, Stage, stay

NEXT = "http://document.example/next"


def fails(stage: Stage, kind: type[do.Effect], gone: bool = False) -> None:
    """Report that the one held effect of that kind failed."""
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
    assert "ann" not in stage.asterisk.channels and not stage.engine.calls


def test_a_sound_whose_making_broke_is_passed_over(stage: Stage) -> None:
    stage.held = {do.PrepareSound}
    stage.call("ann", Play("song"), Speak("next"))
    fails(stage, do.PrepareSound)
    assert stage.media("ann") == ["next"]


def test_a_sound_document_whose_asking_broke_means_no_sound(stage: Stage) -> None:
    stage.held = {do.FetchSoundDocument}
    stage.call("ann", stay(wait_sound=MUSIC, start_conference_on_enter=False))
    fails(stage, do.FetchSoundDocument)
    assert stage.hears("ann") == {"music"}


def test_a_name_whose_claim_broke_is_passed_over(stage: Stage) -> None:
    stage.held = {do.ClaimName}
    stage.call("ann", stay(), Speak("next"))
    fails(stage, do.ClaimName)
    assert stage.media("ann") == ["next"] and not stage.engine.conferences


def test_a_failed_hangup_is_retried(stage: Stage) -> None:
    stage.held = {do.HangUp}
    stage.call("ann")
    fails(stage, do.HangUp)
    assert "ann" in stage.asterisk.channels and stage.engine.calls
    stage.pass_time(5)
    assert "ann" not in stage.asterisk.channels and not stage.engine.calls


def test_a_bridge_that_could_not_be_destroyed_is_tried_again(stage: Stage) -> None:
    stage.call("ann", stay())
    stage.held = {do.DestroyBridge}
    stage.hang_up("ann")
    fails(stage, do.DestroyBridge)
    assert stage.asterisk.bridges and stage.callback_texts()[-1] == "exit ann hangup"
    stage.pass_time(5)
    assert not stage.asterisk.bridges and not stage.engine.conferences


@pytest.mark.parametrize("stays", [(), (Speak("one moment"),)])
def test_a_document_that_leads_to_itself_ends(stage: Stage, stays: tuple[Speak, ...]) -> None:
    stage.documents[NEXT] = (*stays, Redirect(NEXT))
    stage.call("ann", Redirect(NEXT))
    while stage.asterisk.playbacks:
        stage.finish("ann")
    code, text = stage.problems()[-1]
    assert code == 8014 and "20 documents in a row" in text
    assert "ann" not in stage.asterisk.channels
    assert len(stage.all(do.FetchDocument)) == 21, "the first, and twenty more"


def asked_within(stage: Stage, seconds: int, *, quick: int, then_s: int) -> int:
    """Count ann's document requests: `quick` that take no time, then one that takes `then_s` seconds, repeatedly."""
    for n in range(quick):
        stage.documents[f"{NEXT}{n}"] = (Redirect(f"{NEXT}{n + 1}"),)
    stage.documents[f"{NEXT}{quick}"] = (Wait(then_s), Redirect(f"{NEXT}0"))
    stage.call("ann", Redirect(f"{NEXT}0"))
    for _ in range(seconds):
        stage.pass_time(1)
        if "ann" not in stage.asterisk.channels:
            break
    return len(stage.all(do.FetchDocument))


@pytest.mark.parametrize(("quick", "then_s"), [(19, 1), (15, 3), (2, 1), (3, 2)])
def test_a_short_wait_document_is_requested_once_a_second_on_average(stage: Stage, quick: int, then_s: int) -> None:
    """Nineteen without a pause, one second, and nineteen again: no document would be the twentieth in a row."""
    asked = asked_within(stage, 100, quick=quick, then_s=then_s)
    code, text = stage.problems()[-1]
    assert code == 8014 and "20 documents in a row" in text
    assert "ann" not in stage.asterisk.channels
    assert 21 <= asked <= 21 + (stage.now - START) / 1000


@pytest.mark.parametrize(("quick", "then_s"), [(0, 1), (19, 20), (4, 5)])
def test_a_document_that_takes_its_time_may_lead_to_itself(stage: Stage, quick: int, then_s: int) -> None:
    asked = asked_within(stage, 100, quick=quick, then_s=then_s)
    assert "ann" in stage.asterisk.channels and not stage.problems()
    assert 100 <= asked <= 121


def test_documents_are_paced_by_no_clock_that_was_set_back(stage: Stage) -> None:
    stage.documents[NEXT] = (Wait(1), Redirect(NEXT))
    stage.call("ann", Redirect(NEXT))
    stage.pass_time(5)
    (call,) = stage.engine.calls.values()
    for step in (3_600_000, -3_600_000, 10_000):
        call.paced_until += step
        stage.pass_time(60)
    assert "ann" in stage.asterisk.channels and not stage.problems()
