"""States of a member: the transition table, and who may use it."""

from __future__ import annotations

import pytest

from ari_conf.core import events as ev
from ari_conf.core.conferences.member import Member
from ari_conf.core.conferences.member_state import TRANSITIONS, MemberState
from ari_conf.core.effects import ReportProblem
from ari_conf.core.transitions import IllegalTransition
from tests.core.stage import Stage, players, stay

ILLEGAL = [(state, to) for state, following in TRANSITIONS.items() for to in MemberState if to not in following]


def member_in(state: MemberState) -> Member:
    member = Member.create(1, "id1", "A", "call-ann", "ann", stay(), "")
    member.state = state
    return member


def test_the_table_has_each_state_and_each_can_be_reached() -> None:
    assert list(TRANSITIONS) == list(MemberState)
    assert {to for following in TRANSITIONS.values() for to in following} == set(MemberState) - {
        next(iter(MemberState))
    }


@pytest.mark.parametrize(("state", "to"), ILLEGAL)
def test_an_illegal_transition_is_an_error_that_changes_nothing(state: MemberState, to: MemberState) -> None:
    member, before = member_in(state), member_in(state)
    with pytest.raises(IllegalTransition, match=f"{to} can't follow {state}"):
        member.change_state(to)
    assert member == before


def test_a_transition_of_the_table_changes_the_state() -> None:
    for state, following in TRANSITIONS.items():
        for to in following:
            member = member_in(state)
            member.change_state(to)
            assert member.state is to


def test_an_illegal_transition_is_a_failed_step(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    players(stage, "ann", "bob")
    stage.call("cid", stay("other"))
    event = ev.ChannelLeftBridge("ann", stage.bridge_id())
    with monkeypatch.context() as patch, pytest.raises(IllegalTransition):
        patch.setitem(TRANSITIONS, MemberState.IN_BRIDGE, {})
        stage.engine.handle_event(event, stage.now)
    stage.carry_out(stage.engine.abort_failed_step(event, stage.now))
    assert {e.call_uuid for e in stage.all(ReportProblem)} == {"call-ann", "call-bob"}
    assert set(stage.engine.calls) == {"call-cid"} and stage.conference("other") is not None
