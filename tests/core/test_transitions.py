"""Transition tables: the check, and the diagram."""

from __future__ import annotations

from enum import StrEnum

import pytest

from ari_conf.core.transitions import IllegalTransition, Transitions, checked, mermaid


class Light(StrEnum):
    RED = "red"
    GREEN = "green"
    OUT = "out"


TABLE: Transitions[Light] = {
    Light.RED: {Light.GREEN: "nobody crosses", Light.OUT: "no current"},
    Light.GREEN: {Light.RED: "somebody waits"},
    Light.OUT: {},
}


def test_a_transition_of_the_table_is_allowed() -> None:
    assert checked(TABLE, Light.RED, Light.GREEN) is Light.GREEN


@pytest.mark.parametrize(
    ("state", "following"), [(Light.GREEN, Light.OUT), (Light.OUT, Light.RED), (Light.RED, Light.RED)]
)
def test_any_other_transition_is_an_error(state: Light, following: Light) -> None:
    with pytest.raises(IllegalTransition, match=f"Light: {following} can't follow {state}"):
        checked(TABLE, state, following)


def test_the_diagram_has_each_transition_and_the_ends() -> None:
    assert mermaid(TABLE).splitlines() == [
        "stateDiagram-v2",
        "  [*] --> red",
        "  red --> green: nobody crosses",
        "  red --> out: no current",
        "  green --> red: somebody waits",
        "  out --> [*]",
    ]
