"""A call and its document: the elements around a conference, each play with the sentence that it checks."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.elements import GetDigits, Hangup, Play, PreAnswer, Redirect, Speak, Wait
from ari_conf.core.problem_kinds import ProblemKind
from tests.core.stage import ACTION, START, Stage, stay

NEXT = "http://next.example/"
FALLBACK = "http://fallback.example/"
HANGUP = "http://hangup.example/"
INVALID = ev.DocumentFailed("", ProblemKind.DOCUMENT_INVALID, "it is no XML")


@pytest.fixture
def stage() -> Stage:
    return Stage(answer_url="http://answer.example/", hangup_url=HANGUP)


# The document.


def test_elements_run_from_top_to_bottom(stage: Stage) -> None:
    """ "elements that run from top to bottom" """
    stage.call("ann", Speak("one"), Play("two"), Speak("three"))
    stage.finish("ann")
    stage.finish("ann")
    assert stage.media("ann") == ["one", "two", "three"]


@pytest.mark.parametrize("elements", [(), (Speak("one"),)])
def test_when_no_element_is_left_the_call_is_hung_up(stage: Stage, elements: tuple[Speak, ...]) -> None:
    """ "an empty one ends the call; when no element is left the call is hung up"; "4010 end of the document" """
    stage.call("ann", *elements)
    if elements:
        stage.finish("ann")
    assert stage.all(do.HangUp) == [do.HangUp("ann", "normal")]
    assert stage.hangup_request("ann")["HangupCauseCode"] == "4010"
    stage.assert_nothing_is_left()


def test_the_document_comes_from_the_answer_url_of_the_account(stage: Stage) -> None:
    stage.documents["http://answer.example/"] = (Speak("hello"),)
    stage.ring("ann")
    (fetch,) = stage.all(do.FetchDocument)
    params = dict(fetch.params)
    assert params["Event"] == "StartApp" and params["CallStatus"] == "ringing" and params["X-PH-Team"] == "blue"
    assert stage.media("ann") == ["hello"]


@pytest.mark.parametrize("source", ["http://document.example/x", "lobby"])
def test_the_dialplan_s_document_comes_before_it(stage: Stage, source: str) -> None:
    stage.documents[source] = (Speak("hello"),)
    stage.ring("ann", document=source, method="GET")
    assert [(f.source, f.method) for f in stage.all(do.FetchDocument)] == [(source, "GET")]
    assert stage.media("ann") == ["hello"]


def test_an_account_that_is_not_there(stage: Stage) -> None:
    stage.ring("ann", auth="nobody")
    assert stage.all(do.HangUp) == [do.HangUp("ann", "rejected")]
    assert "nobody" in stage.problems()[0][1]
    stage.assert_nothing_is_left()


def test_neither_answer_url_nor_document() -> None:
    stage = Stage()
    stage.ring("ann")
    assert stage.codes() == [7011]
    stage.assert_nothing_is_left()


def test_sounds_to_come_are_warmed(stage: Stage) -> None:
    asked = GetDigits((Speak("c"), Wait(1)), invalid_digits_sound="d")
    stage.call("ann", Wait(9), Play("a"), PreAnswer((Play("b"),)), asked, Play("a"))
    sounds = (Play("a"), Play("b"), Speak("c"), Play("d"))
    assert stage.all(do.WarmSounds) == [do.WarmSounds("call-ann", "A", sounds)]


@pytest.mark.parametrize("ends", ["hangs up", "Hangup", "is refused"])
def test_with_its_end_nothing_is_prepared_for_a_call_any_more(stage: Stage, ends: str) -> None:
    if ends == "is refused":
        stage.ring("ann", auth="nobody")
    elif ends == "Hangup":
        stage.call("ann", Hangup())
    else:
        stage.call("ann", Wait(9))
        assert stage.all(do.StopPreparing) == []
        stage.hang_up("ann")
    assert stage.all(do.StopPreparing) == [do.StopPreparing("call-ann")]


def test_the_owners_of_a_playback_and_a_fetch(stage: Stage) -> None:
    stage.call("ann", Wait(9))
    stage.call("bob", stay())
    room = stage.conference_id()
    (member_id,) = stage.engine.conferences[room].members
    owners = stage.engine.owners
    assert owners("c.call-ann.3.1") == ("A", ("call-ann",))
    assert owners(f"m.{room}.{member_id}.wait.1.1") == ("A", (room, "call-bob"))
    assert owners(f"m.{room}.99.exitSound.1") == owners(f"b.{room}.1.1") == ("A", (room,))
    assert owners("c.nobody.1") == owners("b.nothing.1") == owners("") == ("", ())
    stage.hang_up("ann")
    stage.hang_up("bob")
    assert owners("c.call-ann.3.1") == owners(f"b.{room}.1.1") == ("", ())
    assert stage.all(do.StopPreparing)[-1] == do.StopPreparing(room)


# Codes.


@pytest.mark.parametrize(("found", "code"), [(None, 7011), (INVALID, 8011)])
def test_an_answer_that_cannot_be_run(stage: Stage, found: ev.DocumentFailed | None, code: int) -> None:
    """ "7011 answer URL unreachable"; "8011 … its document is invalid" ; "else the call is hung up" """
    if found:
        stage.documents["http://answer.example/"] = found
    stage.ring("ann")
    assert stage.codes() == [code]
    assert stage.hangup_request("ann")["HangupCauseCode"] == str(code)


@pytest.mark.parametrize(("found", "code"), [(None, 7012), (INVALID, 8012)])
@pytest.mark.parametrize("conference", [True, False])
def test_an_action_that_cannot_be_run(
    stage: Stage, conference: bool, found: ev.DocumentFailed | None, code: int
) -> None:
    """ "7012 action URL"; "8012" """
    if found:
        stage.documents[ACTION] = found
    element = stay(action=ACTION, hangup_on_star=True) if conference else GetDigits(action=ACTION, num_digits=1)
    stage.call("ann", element)
    stage.press("ann", "*" if conference else "1")
    assert stage.codes() == [code]
    assert stage.hangup_request("ann")["HangupCauseCode"] == str(code)


@pytest.mark.parametrize(("found", "code"), [(None, 7014), (INVALID, 8014)])
def test_a_redirect_that_cannot_be_run(stage: Stage, found: ev.DocumentFailed | None, code: int) -> None:
    """ "7014 redirect URL"; "8014" """
    if found:
        stage.documents[NEXT] = found
    stage.call("ann", Redirect(NEXT))
    assert stage.codes() == [code]
    assert stage.hangup_request("ann")["HangupCauseCode"] == str(code)


def test_a_redirect_to_no_url_can_t_be_reached() -> None:
    """ "a Redirect with such a text is a redirect that cannot be reached (7014)": no local document is run either."""
    stage = Stage(answer_url="http://answer.example/", fallback_url=FALLBACK)
    stage.documents["http://answer.example/"] = (Speak("hi"), Redirect(""), Speak("never"))
    stage.documents[FALLBACK] = (Speak("sorry"),)
    stage.ring("ann")
    stage.finish("ann")
    assert stage.codes() == [7014]
    assert [f.source for f in stage.all(do.FetchDocument)][1:] == [FALLBACK]
    assert stage.media("ann") == ["hi", "sorry"]


@pytest.mark.parametrize("found", [None, INVALID])
def test_the_fallback_url_is_requested(found: ev.DocumentFailed | None) -> None:
    """ "the account's fallback URL is asked if it has one" """
    stage = Stage(answer_url="http://answer.example/", fallback_url=FALLBACK, fallback_method="GET", hangup_url=HANGUP)
    if found:
        stage.documents["http://answer.example/"] = found
    stage.documents[FALLBACK] = (Speak("sorry"),)
    stage.ring("ann")
    assert [(f.source, f.method) for f in stage.all(do.FetchDocument)][1:] == [(FALLBACK, "GET")]
    assert stage.media("ann") == ["sorry"]
    stage.finish("ann")
    assert stage.hangup_request("ann")["HangupCauseCode"] == "4010"


def test_the_fallback_url_fails_as_well() -> None:
    stage = Stage(answer_url="http://answer.example/", fallback_url=FALLBACK)
    stage.documents[FALLBACK] = INVALID
    stage.ring("ann")
    assert stage.codes() == [7011, 8011]
    assert len(stage.all(do.FetchDocument)) == 2
    stage.assert_nothing_is_left()


def test_after_a_valid_document_the_fallback_is_allowed_again() -> None:
    stage = Stage(answer_url="http://answer.example/", fallback_url=FALLBACK)
    stage.documents[FALLBACK] = (Speak("sorry"), Redirect(NEXT))
    stage.documents[NEXT] = (Speak("next"), Redirect("http://later.example/"))
    stage.ring("ann")
    stage.finish("ann")
    stage.finish("ann")
    asked = [f.source for f in stage.all(do.FetchDocument)]
    assert asked == ["http://answer.example/", FALLBACK, NEXT, "http://later.example/", FALLBACK]


def test_fallback_does_not_rescue_its_own_failures() -> None:
    stage = Stage(answer_url="http://answer.example/", fallback_url=FALLBACK)
    stage.documents[FALLBACK] = (Redirect(NEXT),)
    stage.ring("ann")
    assert [f.source for f in stage.all(do.FetchDocument)] == ["http://answer.example/", FALLBACK, NEXT]
    assert stage.codes() == [7011, 7014]
    stage.assert_nothing_is_left()


# Play, Speak, Wait.


@pytest.mark.parametrize("loop", [1, 3])
def test_play_loops(stage: Stage, loop: int) -> None:
    stage.call("ann", Play("song", loop=loop), Speak("after"))
    for _ in range(loop):
        stage.finish("ann")
    assert stage.media("ann") == ["song"] * loop + ["after"]
    assert len(stage.all(do.PrepareSound)) == 2


def test_loop_0_is_until_hang_up(stage: Stage) -> None:
    """ "0 = until hang-up" """
    stage.call("ann", Speak("song", loop=0), Speak("never"))
    for _ in range(50):
        stage.pass_time(1)
        stage.finish("ann")
    assert stage.media("ann") == ["song"] * 51
    stage.hang_up("ann")
    stage.assert_nothing_is_left()


def test_a_sound_that_cannot_be_had_is_a_problem_and_the_next_element_runs(stage: Stage) -> None:
    stage.call("ann", Play("broken", loop=0), Speak("next"))
    assert stage.problems() == [(None, "broken")]
    assert stage.media("ann") == ["next"]


def test_asterisk_can_not_play_it(stage: Stage) -> None:
    stage.held = {do.PlayMedia}
    stage.call("ann", Play("song", loop=0), Speak("next"))
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "no such format"))
    assert stage.problems() == [(None, "no such format")]
    assert stage.media("ann")[-1] == "next"


def test_wait(stage: Stage) -> None:
    stage.call("ann", Speak("one"), Wait(3), Speak("two"))
    stage.finish("ann")
    stage.pass_time(2.999)
    assert stage.media("ann") == ["one"]
    stage.pass_time(0.001)
    assert stage.media("ann") == ["one", "two"]


@pytest.mark.parametrize("element", [Play("a"), Speak("a"), GetDigits((Speak("a"),)), stay()])
def test_these_answer_the_call(stage: Stage, element: Play) -> None:
    """ "Play, Speak, Wait, GetDigits and Conference answer the call" """
    stage.call("ann", element)
    assert stage.all(do.Answer) == [do.Answer("ann")]
    assert stage.asterisk.channels["ann"].up


def test_a_first_wait_waits_before_answering(stage: Stage) -> None:
    """ "As the first element it waits before answering" """
    stage.call("ann", Wait(3), Wait(2), Wait(1))
    stage.pass_time(2.9)
    assert stage.all(do.Answer) == []
    stage.pass_time(0.1)
    assert stage.all(do.Answer) == [do.Answer("ann")]


def test_an_answered_call_is_not_answered_again(stage: Stage) -> None:
    stage.call("ann", Speak("a"), stay(), answered=True)
    assert stage.all(do.Answer) == []


def test_asterisk_can_not_answer_it(stage: Stage) -> None:
    stage.held = {do.Answer}
    stage.call("ann", Wait(1), Wait(9))
    stage.pass_time(1)
    effect = stage.give_up()
    stage.tell(ev.EffectFailed(effect, "no answer in time"))
    assert stage.all(do.HangUp) == [do.HangUp("ann")]
    assert stage.problems() == [(None, "no answer in time")]


# Hangup.


@pytest.mark.parametrize(
    ("element", "reason", "code"),
    [
        (Hangup(), "rejected", 3020),
        (Hangup(reason="rejected"), "rejected", 3020),
        (Hangup(reason="busy"), "busy", 3010),
    ],
)
def test_hangup_as_the_first_element(stage: Stage, element: Hangup, reason: str, code: int) -> None:
    """ "First element without a reason: rejected"; "3010 busy; 3020 rejected" """
    stage.call("ann", element)
    assert [(e.channel_id, e.reason) for e in stage.all(do.HangUp)] == [("ann", reason)]
    assert stage.all(do.Answer) == []
    assert stage.hangup_request("ann")["HangupCauseCode"] == str(code)


def test_a_later_hangup_is_a_normal_one(stage: Stage) -> None:
    """ "4000 normal hang-up" """
    stage.call("ann", Wait(1), Hangup(), Speak("never"))
    stage.pass_time(1)
    assert stage.all(do.HangUp) == [do.HangUp("ann", "normal")]
    assert stage.hangup_request("ann")["HangupCauseCode"] == "4000"


def test_a_schedule_hangs_up_then_and_the_following_elements_go_on_meanwhile(stage: Stage) -> None:
    """ "seconds: hang up then, the following elements go on meanwhile"; "6000 scheduled hang-up" """
    stage.call("ann", Hangup(schedule=10), Speak("song", loop=0))
    stage.finish("ann")
    stage.pass_time(9.999)
    assert stage.all(do.HangUp) == [] and len(stage.media("ann")) == 2
    stage.pass_time(0.001)
    assert stage.all(do.HangUp) == [do.HangUp("ann", "normal")]
    assert stage.hangup_request("ann")["HangupCauseCode"] == "6000"
    stage.assert_nothing_is_left()


def test_a_schedule_that_nothing_follows_is_now(stage: Stage) -> None:
    """ "nothing follows: now" """
    stage.call("ann", Wait(1), Hangup(schedule=10))
    stage.pass_time(1)
    assert stage.hangup_request("ann")["HangupCauseCode"] == "6000"


def test_a_schedule_holds_in_the_next_document_and_in_a_conference(stage: Stage) -> None:
    stage.documents[NEXT] = (stay(),)
    stage.call("ann", Hangup(schedule=10), Redirect(NEXT))
    stage.pass_time(10)
    assert stage.callback_texts() == ["enter ann", "exit ann hangup"]
    stage.assert_nothing_is_left()


def test_a_call_has_ended_when_asterisk_says_that_its_channel_is_gone_and_not_before() -> None:
    stage = Stage(hangup_url=HANGUP)
    stage.held = {do.HangUp}
    stage.call("ann")
    stage.pass_time(14)
    assert len(stage.all(do.HangUp)) == 2
    stage.pass_time(3600)
    assert 60 <= len(stage.all(do.HangUp)) <= 70, "each minute, in the end"
    assert [e for e in stage.all(do.PostCallback) if e.url == HANGUP] == []
    assert [text for _, text in stage.problems() if "hang" in text] == [
        "Asterisk does not hang up the call: the request is repeated until it does"
    ]
    stage.let_go()
    assert stage.hangup_request("ann")["Duration"] == "3614"
    stage.assert_nothing_is_left()


# Redirect, PreAnswer.


def test_a_redirects_document_replaces_the_rest(stage: Stage) -> None:
    """ "its document replaces the rest" """
    stage.documents[NEXT] = (Speak("next"),)
    stage.call("ann", Redirect(NEXT, method="GET"), Speak("never"))
    fetch = stage.all(do.FetchDocument)[1]
    assert (fetch.source, fetch.method, dict(fetch.params)["Event"]) == (NEXT, "GET", "Redirect")
    assert stage.media("ann") == ["next"]


def test_a_redirect_does_not_answer(stage: Stage) -> None:
    """ "Hangup, Redirect, PreAnswer and a first Wait don't" """
    stage.documents[NEXT] = (Hangup(reason="busy"),)
    stage.call("ann", Redirect(NEXT))
    assert stage.all(do.Answer) == []


def test_pre_answer_runs_before_the_call_is_answered(stage: Stage) -> None:
    """ "its Speak, Play, Wait, GetDigits, Redirect run as early media, before the call is answered" """
    stage.call("ann", PreAnswer((Speak("early"), Wait(1), GetDigits((Play("pin"),), num_digits=1))), Speak("late"))
    stage.finish("ann")
    stage.pass_time(1)
    stage.press("ann", "1")
    answered = stage.effects.index(do.Answer("ann"))
    played = [n for n, e in enumerate(stage.effects) if isinstance(e, do.PlayMedia)]
    assert played[1] < answered < played[2]
    assert stage.media("ann") == ["early", "pin", "late"]


def test_a_redirect_in_pre_answer(stage: Stage) -> None:
    stage.documents[NEXT] = (Speak("answered"),)
    stage.call("ann", PreAnswer((Redirect(NEXT),)), Speak("never"))
    assert stage.media("ann") == ["answered"]
    assert stage.all(do.Answer) == [do.Answer("ann")]


# The end.


def test_the_hangup_url_gets_a_callback_at_the_end(stage: Stage) -> None:
    """ "After the call ended also HangupCause, HangupCauseCode, Duration, BillDuration, …, EndTime" """
    stage.call("ann", Wait(3), Speak("song", loop=0))
    stage.pass_time(13.5)
    stage.hang_up("ann")
    reported = stage.hangup_request("ann")
    assert reported["Event"] == "Hangup" and reported["CallStatus"] == "completed"
    assert (reported["HangupCause"], reported["HangupCauseCode"]) == ("NORMAL_CLEARING", "4000")
    assert (reported["Duration"], reported["BillDuration"]) == ("13", "11")
    assert reported["StartTime"] == "2023-11-14 22:13:20" and reported["AnswerTime"] == "2023-11-14 22:13:23"
    assert reported["EndTime"] == "2023-11-14 22:13:33"


def test_a_call_that_was_never_answered(stage: Stage) -> None:
    stage.call("ann", Wait(30))
    stage.pass_time(5)
    stage.hang_up("ann")
    reported = stage.hangup_request("ann")
    assert (reported["Duration"], reported["BillDuration"], reported["AnswerTime"]) == ("5", "0", "")


def test_the_hangup_callback_follows_the_exit_callback(stage: Stage) -> None:
    stage.call("ann", stay(action=ACTION))
    stage.hang_up("ann")
    assert [e.url for e in stage.all(do.PostCallback)][1:] == ["http://callback.example/", ACTION, HANGUP]


def test_a_repeated_hangup_is_reported_once(stage: Stage) -> None:
    stage.call("ann", Speak("song"))
    stage.hang_up("ann")
    assert stage.tell(ev.ChannelHungUp("ann")) == []
    assert len(stage.all(do.PostCallback)) == 1


@pytest.mark.parametrize("held", [do.IdentifyCall, do.FetchDocument, do.PrepareSound])
def test_the_caller_hangs_up_while_a_result_is_awaited(stage: Stage, held: type) -> None:
    stage.held = {held}
    stage.call("ann", Speak("song"), stay())
    stage.hang_up("ann")
    stage.let_go()
    assert stage.all(do.PlayMedia) == stage.all(do.AddChannel) == []
    assert stage.all(do.HangUp) == [] and not stage.engine.calls
    assert stage.now == START


def test_a_call_that_its_caller_cancels() -> None:
    stage = Stage(hangup_url="http://hangup.example/")
    stage.held.add(do.FetchDocument)
    stage.call("ann", Speak("a"))
    stage.asterisk.hang_up("ann", 487)
    stage.go_on()
    reported = stage.hangup_request("ann")
    assert (reported["HangupCause"], reported["HangupCauseCode"]) == ("ORIGINATOR_CANCEL", "1000")
    assert (reported["AnswerTime"], reported["BillDuration"]) == ("", "0")


def test_a_cancel_that_crossed_the_answer_means_that_there_was_none() -> None:
    stage = Stage(hangup_url="http://hangup.example/")
    stage.call("ann", Speak("a"))
    stage.pass_time(3)
    stage.asterisk.hang_up("ann", 487)
    stage.go_on()
    reported = stage.hangup_request("ann")
    assert (reported["HangupCause"], reported["AnswerTime"], reported["BillDuration"]) == ("ORIGINATOR_CANCEL", "", "0")


def test_a_caller_who_cancels_during_the_rejection_was_rejected() -> None:
    stage = Stage(hangup_url="http://hangup.example/")
    stage.held.add(do.HangUp)
    stage.call("ann", Hangup("busy"))
    stage.asterisk.hang_up("ann", 487)
    stage.go_on()
    reported = stage.hangup_request("ann")
    assert (reported["HangupCause"], reported["HangupCauseCode"]) == ("USER_BUSY", "3010")


def test_a_call_of_which_nothing_was_heard_for_a_while() -> None:
    stage = Stage(hangup_url="http://hangup.example/")
    stage.call("ann", Speak("a"))
    stage.asterisk.hang_up("ann", 44)
    stage.go_on()
    reported = stage.hangup_request("ann")
    assert (reported["HangupCause"], reported["HangupCauseCode"]) == ("MEDIA_TIMEOUT", "6020")


def test_the_phone_rings_while_a_document_is_requested(stage: Stage) -> None:
    stage.held.add(do.FetchDocument)
    stage.call("ann", Speak("a"))
    assert do.Ring("ann") in stage.effects
    assert stage.effects.index(do.Ring("ann")) < next(
        n for n, effect in enumerate(stage.effects) if isinstance(effect, do.FetchDocument)
    )


def test_a_kept_document_and_a_call_that_is_up_do_not_ring(stage: Stage) -> None:
    stage.documents["kept"] = (Speak("a"),)
    stage.ring("ann", document="kept")
    stage.call("bob", Speak("a"), answered=True)
    assert not [effect for effect in stage.effects if isinstance(effect, do.Ring)]


def test_an_anonymous_caller_has_no_number() -> None:
    stage = Stage(hangup_url="http://hangup.example/")
    stage.held.add(do.IdentifyCall)
    stage.call("ann", Speak("a"), caller_name="Ann")
    account = Account("A", hangup_url="http://hangup.example/")
    stage.tell(ev.CallIdentified("call-ann", account, (), withheld=True, warnings=("X-PH-A is left out",)))
    stage.hang_up("ann")
    asked = [e for e in stage.effects if isinstance(e, do.FetchDocument | do.PostCallback)]
    assert len(asked) == 2
    for each in asked:
        reported = dict(each.params)
        assert (reported["From"], reported["CallerName"]) == ("anonymous", "Anonymous")
    assert "4930123" not in repr(asked)
    assert [e.text for e in stage.effects if isinstance(e, do.ReportProblem)] == ["X-PH-A is left out"]
