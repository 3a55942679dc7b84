"""State machines: transition tables, their check, and their diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TypeVar

S = TypeVar("S", bound=StrEnum)
Transitions = Mapping[S, Mapping[S, str]]
"""State -> each state that may follow it -> what leads there. The first state is the initial one; nothing follows a
final one."""


class IllegalTransition(Exception):
    """Transition that the table does not have. It is a bug, and nothing has changed."""


def checked(table: Transitions[S], state: S, following: S) -> S:
    """Return `following`. Raises IllegalTransition if it may not follow `state`."""
    if following not in table[state]:
        raise IllegalTransition(f"{type(state).__name__}: {following} can't follow {state}")
    return following


def mermaid(table: Transitions[S]) -> str:
    """Return the table as a mermaid diagram, without the fence around it."""
    return "\n".join(["stateDiagram-v2", *(f"  {line}" for line in _arrows(table))])


def _arrows(table: Transitions[S]) -> Iterator[str]:
    yield f"[*] --> {next(iter(table))}"
    for state, following in table.items():
        yield from (f"{state} --> {other}: {reason}" for other, reason in following.items())
        if not following:
            yield f"{state} --> [*]"
