"""States of a call: only the transitions of the table happen, and all of them do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import invariants
from ari_conf.core.calls import call as call_module
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_state import TRANSITIONS, CallState
from ari_conf.core.elements import GetDigits, Hangup, Play, Redirect, Wait
from ari_conf.core.hangup_codes import HangupCode
from ari_conf.core.step_failed import StepFailed
from ari_conf.core.transitions import IllegalTransition
from tests.core.stage import START, Stage, stay, waiting

ALLOWED = {(state, following) for state, others in TRANSITIONS.items() for following in others}


def values(call: Call) -> dict[str, Any]:
    return msgspec.structs.asdict(call)


@pytest.mark.parametrize("state", CallState)
@pytest.mark.parametrize("following", CallState)
def test_a_transition_that_the_table_does_not_have_is_an_error_and_changes_nothing(
    state: CallState, following: CallState
) -> None:
    call = Call("call-ann", "request-ann", "ann", "A", "1", "2", "", "inbound", START, state=state)
    before = values(call)
    if (state, following) in ALLOWED:
        call.change_state(following)
        assert values(call) == {**before, "state": following}
    else:
        with pytest.raises(IllegalTransition):
            call.change_state(following)
        assert values(call) == before


@pytest.mark.parametrize(
    "work",
    [
        lambda call: call._request_document("action", "http://d.example/", "GET", "Redirect", (), START),
        lambda call: call._start_element(Play("song"), START),
        lambda call: call._start_element(stay(), START),
        lambda call: call._start_element(GetDigits(()), START),
    ],
)
def test_work_that_an_ended_call_can_not_begin_changes_nothing(work: Callable[[Call], Any]) -> None:
    stage = Stage()
    stage.call("ann", Wait(60))
    call = stage.call_of("ann")
    assert call is not None
    stage.hang_up("ann")
    before = values(call)
    with pytest.raises(IllegalTransition):
        work(call)
    assert values(call) == before


def test_an_illegal_transition_is_a_failed_step_that_ends_its_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    stage.call("ann", Wait(5), Play("song"))
    stage.call("bob", Wait(60))
    with monkeypatch.context() as patch, pytest.raises(StepFailed) as failure:
        patch.setitem(call_module.TRANSITIONS, CallState.RUNNING, {})
        stage.pass_time(5)
    assert isinstance(failure.value.__cause__, IllegalTransition)
    stage.carry_out(stage.engine.abort_failed_step(failure.value, stage.now))
    assert set(stage.engine.calls) == {"call-bob"}


def lives(stage: Stage) -> None:
    """Let calls go through all transitions of the table."""
    stage.documents["http://document.example/next"] = (stay("redirected"),)
    # From identifying: hung up before, and without a document.
    stage.held = {do.IdentifyCall}
    stage.ring("early")
    stage.hang_up("early")
    stage.held, stage.waiting = set(), []
    stage.ring("lost", "nobody")
    # From fetching: a fallback, no fallback, hung up meanwhile, Conference first.
    stage.ring("failing", document="http://document.example/missing")
    stage.held = {do.FetchDocument}
    stage.ring("waiting", document="http://document.example/x")
    stage.hang_up("waiting")
    stage.held, stage.waiting = set(), []
    stage.call("first", stay("a"))
    # From running: the next element, a redirect, a conference, the end, hung up meanwhile.
    stage.call("goes", Wait(1), Wait(1), Redirect("http://document.example/next"))
    stage.call("joins", Wait(1), stay("b"))
    stage.call("ends", Wait(1))
    stage.call("leaves", Wait(60))
    stage.pass_time(3)
    stage.hang_up("leaves")
    # From a conference: another one, an element, the action, the API, hung up meanwhile.
    stage.call("again", stay("c"), stay("d"), Wait(3600))
    stage.call("host", waiting(name="c", action="http://document.example/next"))
    for name, command in (("c", api.Kick(None)), ("d", api.Kick(None)), ("a", api.HangUpAll())):
        stage.tell(ev.CommandReceived("x", api.ForConference("A", name, command), stage.now + 5000))
    stage.hang_up("joins")
    stage.call("busy", Hangup(reason="busy"))
    placed_lives(stage)


def placed_lives(stage: Stage) -> None:
    """Let placed calls take every transition until they are answered."""
    stage.documents["http://document.example/placed"] = (Wait(60),)
    conference = stay("placed")
    for state, does in {"ringing": ("ring",), "early": ("send_early_media",), "dialing": ()}.items():
        for ends in ("answers", "joins", "refuses", "canceled"):
            name = f"{state}-{ends}"
            stage.place(name, **({"answer_url": None, "conference": conference} if ends == "joins" else {}))
            for deed in does:
                stage.phone(name, deed)  # type: ignore[arg-type]
            if ends in ("answers", "joins"):
                stage.phone(name, "pick_up")
            elif ends == "refuses":
                stage.refuse(name, 17, 486)
            else:
                cancel(stage, name)
    stage.place("both", ways=("PJSIP/{name}@first", "PJSIP/{name}@second"))
    stage.refuse("both", 34, 503)
    stage.phone("both", "ring")
    stage.phone("both", "send_early_media")
    stage.engine.registry.dial_pace.per_second = 1
    stage.place("now", "later", "never")
    cancel(stage, "never")
    stage.pass_time(2)


def cancel(stage: Stage, name: str) -> None:
    addressed = api.ForCall("A", f"call-{name}", api.HangUpCall())
    stage.tell(ev.CommandReceived(f"cancel-{name}", addressed, stage.now + 5000))


def test_calls_go_through_every_transition_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[CallState, CallState]] = set()
    checked = call_module.checked

    def noting(table: Any, state: CallState, following: CallState) -> CallState:
        seen.add((state, following))
        return checked(table, state, following)

    monkeypatch.setattr(call_module, "checked", noting)
    stage = Stage(fallback_url="http://document.example/fallback")
    lives(stage)
    assert seen == ALLOWED


def test_the_state_is_the_one_that_the_other_fields_imply() -> None:
    stage = Stage()
    stage.call("ann", Wait(60))
    call = stage.call_of("ann")
    assert call is not None and call.state is CallState.RUNNING and list(invariants.call_violations(call)) == []
    call.state = CallState.FETCHING
    assert list(invariants.call_violations(call)) == ["its state"]


def test_a_code_is_a_number_in_the_state_and_in_problems() -> None:
    stage = Stage()
    stage.ring("ann", document="http://document.example/missing")
    (problem,) = stage.all(do.ReportProblem)
    assert type(problem.code) is int and problem.code == HangupCode.ANSWER_UNREACHABLE
    stage.held = {do.HangUp}
    stage.call("bob", Hangup(reason="busy"))
    call = stage.call_of("bob")
    assert call is not None and type(call.hangup_code) is int and call.hangup_code == HangupCode.BUSY
