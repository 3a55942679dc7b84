"""callbackUrl and action: recipients, contents and order of requests. Each play quotes the sentence that it checks."""

from __future__ import annotations

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Speak, Wait
from tests.core.stage import ACTION, CALLBACK, MUSIC, START, Stage, players, stay, waiting

# action, method, redirect.


def test_the_action_is_requested_when_the_stay_ends(stage: Stage) -> None:
    """ "Standard parameters, ConferenceName, ConferenceUUID, ConferenceMemberID" """
    stage.call("ann", stay(action=ACTION, hangup_on_star=True, method="GET"), Speak("not this"))
    conference_id = stage.conference_id()
    stage.documents[ACTION] = (Speak("this"),)
    stage.press("ann", "*")
    params = stage.action_of("ann")
    assert params["ConferenceName"] == "standup"
    assert params["ConferenceUUID"] == conference_id
    assert params["ConferenceMemberID"] == "1"
    assert params["CallUUID"] == "call-ann" and params["CallStatus"] == "in-progress"
    assert params["From"] == "4930123" and params["X-PH-Team"] == "blue" and params["Event"] == "Redirect"
    assert [(f.method, f.source) for f in stage.all(do.FetchDocument)][1:] == [("GET", ACTION)]
    assert stage.media("ann") == ["this"], "it replaces the rest of the document"


def test_redirect_false_goes_on_with_the_next_element(stage: Stage) -> None:
    """ "false: request it, ignore the reply, go on with the next element" """
    stage.call("ann", stay(action=ACTION, redirect=False, hangup_on_star=True), Speak("next"))
    stage.documents[ACTION] = (Speak("not this"),)
    stage.press("ann", "*")
    assert stage.actions() == ["ignored ann"]
    assert stage.media("ann") == ["next"]


def test_the_action_is_requested_also_if_the_member_hung_up(stage: Stage) -> None:
    """Spec: the member's action is requested, also if they hung up (then the reply is ignored)."""
    stage.call("ann", stay(action=ACTION))
    stage.hang_up("ann")
    assert stage.actions() == ["ignored ann"]
    assert stage.action_of("ann")["CallStatus"] == "completed"
    (request,) = [e for e in stage.all(do.PostCallback) if e.url == ACTION]
    assert request.method == "POST"


def test_without_an_action_the_next_element_runs_and_without_one_the_call_ends(stage: Stage) -> None:
    """ "without an action the next element runs; no element left: the call is hung up" """
    stage.call("ann", stay(hangup_on_star=True), Speak("next"))
    stage.press("ann", "*")
    assert stage.media("ann") == ["next"] and stage.all(do.HangUp) == []
    stage.finish("ann")
    assert stage.all(do.HangUp) == [do.HangUp("ann")]


def test_the_actions_xml_opens_another_conference(stage: Stage) -> None:
    stage.call("ann", stay(action=ACTION, hangup_on_star=True))
    stage.documents[ACTION] = (stay("second"),)
    stage.press("ann", "*")
    assert stage.callback_texts() == ["enter ann", "exit ann star", "enter ann"]
    assert stage.conference("second") is not None


def test_the_caller_hangs_up_while_the_action_is_requested(stage: Stage) -> None:
    stage.call("ann", stay(action=ACTION, hangup_on_star=True))
    stage.documents[ACTION] = (stay("second"),)
    stage.held = {do.FetchDocument}
    stage.press("ann", "*")
    stage.hang_up("ann")
    stage.let_go()
    assert stage.callback_texts() == ["enter ann", "exit ann star"]
    stage.assert_nothing_is_left()


def test_a_second_conference_in_the_same_call(stage: Stage) -> None:
    stage.call("ann", stay("one", hangup_on_star=True), stay("two", hangup_on_star=True), Speak("end"))
    stage.press("ann", "*")
    stage.press("ann", "*")
    assert [(c["ConferenceName"], c["ConferenceAction"]) for c in stage.callbacks()] == [
        ("one", "enter"), ("one", "exit"), ("two", "enter"), ("two", "exit")]  # fmt: skip
    assert stage.media("ann") == ["end"]


def test_a_caller_returns_to_the_same_conference_immediately(stage: Stage) -> None:
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", stay(hangup_on_star=True), stay(hangup_on_star=True))
    stage.call("bob", stay(wait_sound=MUSIC))
    stage.press("ann", "*")
    assert stage.callback_texts()[2:] == ["exit ann star", "enter ann"]
    assert [c["ConferenceSequence"] for c in stage.callbacks()] == ["1", "2", "3", "4"]
    assert stage.hears("bob") == {"ann"}


# callbackUrl.


def test_enter_and_exit_with_their_parameters(stage: Stage) -> None:
    stage.call("ann", stay(callback_method="GET"))
    stage.pass_time(5)
    stage.hang_up("ann")
    entered, left = stage.all(do.PostCallback)
    conference_id = stage.all(do.ClaimName)[0].conference_id
    assert (entered.url, entered.method, entered.ordering_scope) == (CALLBACK, "GET", conference_id)
    common = {"ConferenceName": "standup", "ConferenceUUID": conference_id, "ConferenceMemberID": "1"}
    common |= {"CallUUID": "call-ann", "From": "4930123", "To": "100", "Direction": "inbound", "ParentAuthID": "A"}
    enter = {"Event": "ConferenceEnter", "ConferenceAction": "enter", "ConferenceFirstMember": "true"}
    exit_ = {"Event": "ConferenceExit", "ConferenceAction": "exit", "ConferenceLastMember": "true"}
    ours = {"ConferenceSequence": "2", "Timestamp": str(START + 5000), "ConferenceExitReason": "hangup"}
    assert (common | enter | {"ConferenceSequence": "1", "Timestamp": str(START)}).items() <= dict(
        entered.params
    ).items()
    assert (common | exit_ | ours).items() <= dict(left.params).items()
    assert "RequestUUID" in dict(entered.params) and "SessionStart" in dict(entered.params)


def test_first_and_last_member(stage: Stage) -> None:
    """ "ConferenceFirstMember (true, false)"; "ConferenceLastMember (true: the room is empty now)" """
    players(stage, "ann", "bob")
    stage.hang_up("ann")
    players(stage, "cid")
    stage.hang_up("bob", "cid")
    assert [c["ConferenceFirstMember"] for c in stage.callbacks(ConferenceAction="enter")] == ["true", "false", "false"]
    assert [c["ConferenceLastMember"] for c in stage.callbacks(ConferenceAction="exit")] == ["false", "false", "true"]


def test_the_sequence_has_no_gaps_and_is_each_conferences_own(stage: Stage) -> None:
    """ "ConferenceSequence (1, 2, 3 … within the conference, without gaps)" """
    players(stage, "ann", "bob", digits_match=("1",))
    stage.call("cid", stay(callback_url=None))
    stage.call("dan", stay("other"))
    stage.press("ann", "1")
    stage.hang_up("cid", "bob", "ann")
    assert [c["ConferenceSequence"] for c in stage.callbacks(ConferenceName="standup")] == ["1", "2", "3", "4", "5"]
    assert [c["ConferenceSequence"] for c in stage.callbacks(ConferenceName="other")] == ["1"]


def test_callbacks_of_two_deadlines_are_in_order_of_their_sequence(stage: Stage) -> None:
    """ "Callbacks of one conference to one URL arrive in that order." """
    stage.call("ann", stay(digits_match=("1", "12")))
    stage.press("ann", "1")
    stage.pass_time(0.5)
    stage.call("bob", Wait(1), stay())
    stage.pass_time(1)
    assert [c["ConferenceSequence"] for c in stage.callbacks()] == ["1", "2", "3"]
    assert set(stage.callback_texts()[1:]) == {"enter bob", "digits ann 1"}


def test_without_a_callback_url_there_are_no_callbacks(stage: Stage) -> None:
    stage.call("ann", stay(callback_url=None, digits_match=("1",), floor_event=True))
    stage.press("ann", "1")
    stage.talk("ann")
    stage.hang_up("ann")
    assert stage.all(do.PostCallback) == []


def test_two_who_leave_in_one_instant_and_come_back_at_once(stage: Stage) -> None:
    for name in ("ann", "bob"):
        stage.call(name, waiting(), waiting())
    stage.call("cid", waiting())
    stage.tell(ev.CommandReceived("c1", api.ForConference("A", "standup", api.Kick((1, 2))), stage.now + 5000))
    assert stage.callback_texts()[3:] == ["exit ann kick", "exit bob kick", "enter ann", "enter bob"]
    assert [c["ConferenceSequence"] for c in stage.callbacks()] == ["1", "2", "3", "4", "5", "6", "7"]
