"""digitsMatch, relayDTMF, sendDigits, floorEvent. Each play quotes the sentence that it checks."""

from __future__ import annotations

from ari_conf.core import effects as do
from ari_conf.core.elements import Wait
from tests.core.stage import Stage, players, stay, waiting

# digitsMatch, relayDTMF.


def test_a_match_is_reported_and_not_relayed(stage: Stage) -> None:
    """ "Matched digits never are." """
    stage.call("ann", stay(digits_match=("12", "#9")))
    players(stage, "bob")
    stage.press("ann", "12#9")
    assert stage.callback_texts()[2:] == ["digits ann 12", "digits ann #9"]
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
    assert len(stage.callback_texts()) == 1
    stage.pass_time(0.001)
    assert stage.callback_texts()[1:] == ["digits ann 12"]
    stage.press("ann", "123")
    assert stage.callback_texts()[2:] == ["digits ann 123"], "no longer one: at once"


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
    assert stage.callback_texts()[2:] == ["digits ann 1"]
    stage.press("bob", "7")
    assert stage.asterisk.channels["ann"].heard_digits == "7", "relayDTMF is about the member's own digits"


def test_the_last_digits_are_matched_before_the_member_is_out(stage: Stage) -> None:
    stage.call("ann", stay(digits_match=("1", "12")))
    players(stage, "bob")
    stage.press("ann", "1")
    stage.hang_up("ann")
    assert stage.callback_texts()[2:] == ["digits ann 1", "exit ann hangup"]


def test_digits_match_while_waiting_for_the_start(stage: Stage) -> None:
    stage.call("ann", waiting(digits_match=("0",)))
    stage.call("bob", waiting())
    stage.press("ann", "05")
    assert stage.callback_texts()[2:] == ["digits ann 0"]
    assert stage.all(do.SendDigits) == [], "nobody hears anybody"


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


def test_digits_end_with_the_membership(stage: Stage) -> None:
    players(stage, "ann")
    stage.call("bob", stay(send_digits="W5"))
    stage.hang_up("bob")
    stage.pass_time(2)
    assert stage.asterisk.channels["ann"].heard_digits == ""


# floorEvent.


def floor(stage: Stage) -> list[str]:
    return [t for t in stage.callback_texts() if t.startswith("floor")]


def test_talker_takes_the_floor_if_it_is_free_or_the_holder_is_silent(stage: Stage) -> None:
    """ "the holder keeps it through others' interruptions"; "One event for each taking." """
    players(stage, "ann", "bob", floor_event=True)
    stage.talk("ann")
    stage.talk("bob")
    assert floor(stage) == ["floor ann"]
    stage.fall_silent("ann")
    stage.talk("ann")
    assert floor(stage) == ["floor ann"], "ann still holds it"
    stage.fall_silent("bob")
    stage.fall_silent("ann")
    stage.talk("bob")
    assert floor(stage) == ["floor ann", "floor bob"]
    assert stage.callbacks(ConferenceAction="floor")[0]["Event"] == "ConferenceFloor"


def test_the_floor_is_free_when_its_holder_leaves(stage: Stage) -> None:
    """Spec: the floor is free when its holder leaves or is muted."""
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


def test_only_members_with_floor_event_get_floor_callbacks(stage: Stage) -> None:
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
