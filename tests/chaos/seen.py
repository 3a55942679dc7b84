"""What a run leaves to be judged: who was where and heard what, and what was done to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from demo.heard import Heard
from tests.chaos.schedule import BY_NAME

Span = tuple[float, float]
"""(from, to) in epoch ms."""


Stall = tuple[float, float]
"""(end in epoch ms, its length in ms) of a time in which the machine did not let run what wanted to."""


class Ear(Protocol):
    """What a phone heard in one call, such as demo.heard.Recorder."""

    def heard(self) -> Heard: ...


@dataclass
class Leg:
    """One call of one caller. Times are epoch ms."""

    caller: int
    conference: str
    """One conference from its start to its end; a name may serve several."""
    hz: int
    """What he says, all the time."""
    answered_ms: float
    ear: Ear = field(repr=False)
    life: int = 0
    """Which of Asterisk's, counted from 0."""
    from_ms: float = inf
    """In a conference that has started: from here on, or soon after, the others hear him."""
    to_ms: float = inf
    """Until then he was in the conference for certain."""
    quiet: list[Span] = field(default_factory=list)
    """He may not be heard: is being muted or not any more, presses a digit."""
    muted: list[Span] = field(default_factory=list)
    """He is muted: he must not be heard."""
    waits: list[Span] = field(default_factory=list)
    """Alone, with the wait sound, for certain."""
    must_end_ms: float | None = None
    """The conference ended for all: so must his call, without his doing."""
    ended_ms: float = inf
    late: Sequence[tuple[float, float]] = ()
    """(when, by how many ms) of his packets that this machine sent too late."""


@dataclass(frozen=True)
class Injected:
    kind: str
    start_ms: float
    end_ms: float
    """What was killed runs again and has said that it is ready; what was stopped continues."""
    ready_s: float = 0.0
    """From its start until then."""

    @property
    def holds_up(self) -> bool:
        return BY_NAME[self.kind].holds_up

    @property
    def ends_calls(self) -> bool:
        return BY_NAME[self.kind].ends_calls


def due(at_ms: float, faults: Iterable[Injected]) -> float:
    """What could have been done at `at_ms`, had nothing died: when it can be, given what did."""
    for fault in sorted(faults, key=lambda fault: fault.start_ms):
        # One that begins while we still wait for the answer counts as well.
        if fault.holds_up and fault.start_ms <= at_ms + SOON_MS and fault.end_ms > at_ms:
            at_ms = fault.end_ms
    return at_ms


SOON_MS = 1500.0


def stood_still(at_ms: float, ms: float, stalls: Iterable[Stall]) -> float:
    """For how many ms of that time, or just beside it, the machine let something not run."""
    low, high, total = at_ms - BESIDE_MS, at_ms + ms + BESIDE_MS, 0.0
    until = low
    for start, end in sorted((end - length, end) for end, length in stalls):
        first, last = max(start, until), min(end, high)
        if last > first:
            total += last - first
            until = last
    return total


BESIDE_MS = 100.0


def before(at_ms: float, faults: Iterable[Injected]) -> Injected | None:
    """The last that had begun by then."""
    begun = [fault for fault in faults if fault.start_ms <= at_ms]
    return max(begun, key=lambda fault: fault.start_ms, default=None)


@dataclass
class Life:
    """Asterisk's, from one start to its death."""

    number: int = 0
    died: asyncio.Event = field(default_factory=asyncio.Event)
    died_ms: float = 0.0
    back: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Counts:
    calls: int = 0
    """Answered."""
    mutes: int = 0
    pressed: list[float] = field(default_factory=list)
    """When each digit was."""
    beeps: list[float] = field(default_factory=list)
    """When each ended that somebody gave whom the application listened to."""
    unanswered: list[tuple[float, str]] = field(default_factory=list)
    """(when, why), but for those whom Asterisk's death explains."""
    dropped: list[tuple[float, str]] = field(default_factory=list)
    """Calls that ended, and nobody had ended them."""
    commands: list[tuple[float, str]] = field(default_factory=list)
    """That the API never took."""
