"""Ends of a conference. Each play quotes the sentence that it checks."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core.elements import Speak, Wait
from tests.core.stage import ACTION, Stage, players, stay, waiting

# endConferenceOnExit, stayAlone.


def test_end_conference_on_exit(stage: Stage) -> None:
    """ "when this member leaves, the conference ends for everybody" ; "they are not hung up" """
    stage.call("host", stay(end_conference_on_exit=True))
    stage.call("ann", stay(), Speak("bye"))
    stage.call("bob", stay(action=ACTION))
    stage.documents[ACTION] = (Speak("action"),)
    stage.hang_up("host")
    assert stage.callback_texts()[3:] == ["exit host hangup", "exit ann host_left", "exit bob host_left"]
    assert stage.media("ann") == ["bye"] and stage.media("bob") == ["action"]
    assert not stage.engine.conferences


def test_without_it_the_others_stay(stage: Stage) -> None:
    players(stage, "host", "ann", "bob")
    stage.hang_up("host")
    assert stage.hears("ann") == {"bob"}


def test_it_ends_those_who_wait_as_well(stage: Stage) -> None:
    stage.call("ann", waiting())
    stage.call("host", waiting(end_conference_on_exit=True))
    stage.hang_up("host")
    assert stage.callback_texts()[-1] == "exit ann host_left"


def test_stay_alone_false_ends_it_once_one_is_left(stage: Stage) -> None:
    """ "false: the conference ends once a member is left alone" """
    stage.call("ann", stay(stay_alone=False), Wait(9))
    assert stage.conference() is not None, "no member has left ann yet"
    players(stage, "bob", "cid")
    stage.hang_up("cid")
    assert stage.hears("ann") == {"bob"}
    stage.hang_up("bob")
    assert stage.callback_texts()[-1] == "exit ann left_alone"
    assert not stage.engine.conferences


def test_once_false_it_stays_false(stage: Stage) -> None:
    """ "Once false it stays false" """
    stage.call("ann", stay())
    stage.call("bob", stay(stay_alone=False))
    stage.call("cid", stay())
    stage.hang_up("bob")
    stage.hang_up("cid")
    assert stage.callback_texts()[-1] == "exit ann left_alone"


def test_stay_alone_is_the_default(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.hang_up("bob")
    assert stage.conference() is not None


@pytest.mark.parametrize("stay_alone", [True, False])
def test_two_who_leave_in_the_same_instant(stage: Stage, stay_alone: bool) -> None:
    players(stage, "ann", "bob", stay_alone=stay_alone)
    stage.asterisk.hang_up("ann")
    stage.asterisk.hang_up("bob")
    stage.go_on()
    assert [t.split()[:2] for t in stage.callback_texts()[2:]] == [["exit", "ann"], ["exit", "bob"]]
    assert [c["ConferenceLastMember"] for c in stage.callbacks(ConferenceAction="exit")] == ["false", "true"]
    stage.assert_nothing_is_left()


# timeLimit.


def test_the_time_limit_ends_the_conference(stage: Stage) -> None:
    """ "the conference ends after it" """
    stage.call("ann", stay(time_limit=60), Speak("over"))
    stage.pass_time(59.999)
    assert stage.conference() is not None
    stage.pass_time(0.001)
    assert stage.callback_texts()[-1] == "exit ann time_limit"
    assert stage.media("ann") == ["over"]


def test_the_first_time_limit_counts_from_the_entry_of_its_member(stage: Stage) -> None:
    """Spec: the first member whose element gives one sets it, from their entry on; later ones are ignored."""
    stage.call("ann", stay())
    stage.pass_time(100)
    stage.call("bob", stay(time_limit=60))
    stage.pass_time(10)
    stage.call("cid", stay(time_limit=5))
    stage.pass_time(49)
    assert stage.conference() is not None
    stage.pass_time(1)
    assert stage.callback_texts()[-3:] == ["exit ann time_limit", "exit bob time_limit", "exit cid time_limit"]


@pytest.mark.parametrize("limit", [None, 0, 86400, 999_999])
def test_the_cap_holds(stage: Stage, limit: int | None) -> None:
    """ "0: no limit of its own, the server's cap holds (86400)"; "without any ends at the cap" """
    stage.call("ann", stay(time_limit=limit))
    stage.call("bob", stay(time_limit=None if limit is None else 5))
    stage.pass_time(86399)
    assert stage.conference() is not None
    stage.pass_time(1)
    assert stage.callback_texts()[-1] == "exit bob time_limit"


# hangupOnStar.


def test_star_removes_the_member_without_hanging_up(stage: Stage) -> None:
    """ "`*` takes the member out, without hanging the call up" """
    stage.call("ann", stay(hangup_on_star=True), Speak("goodbye"))
    players(stage, "bob")
    stage.press("ann", "*")
    assert stage.callback_texts()[-1] == "exit ann star"
    assert stage.media("ann") == ["goodbye"]
    assert stage.all(do.HangUp) == []


def test_star_leaves_at_once_whatever_the_patterns_are(stage: Stage) -> None:
    """ "`*` with hangupOnStar leaves at once, whatever the patterns are" """
    stage.call("ann", stay(hangup_on_star=True, digits_match=("*", "**", "1*")), Wait(9))
    stage.press("ann", "1*")
    assert stage.callback_texts()[1:] == ["exit ann star"]


def test_without_it_star_is_a_digit(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.press("ann", "*")
    assert stage.asterisk.channels["bob"].heard_digits == "*"


def test_star_while_waiting_for_the_start(stage: Stage) -> None:
    stage.call("ann", waiting(hangup_on_star=True), Speak("goodbye"))
    stage.press("ann", "*")
    assert stage.callback_texts()[-1] == "exit ann star"
    assert stage.hears("ann") == {stage.all(do.PlayMedia)[-1].playback_id}
