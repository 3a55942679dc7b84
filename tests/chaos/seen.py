"""Data of a run to judge: the callers' presence and audio, and the injected faults."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from demo.received_audio import ReceivedAudio
from tests.chaos.schedule import BY_NAME

Span = tuple[float, float]
"""(from, to) in epoch ms."""


Stall = tuple[float, float]
"""(end in epoch ms, length in ms) of a time in which the machine did not let a runnable task run."""


class Ear(Protocol):
    """The received audio of one call, such as demo.received_audio.AudioRecorder."""

    def heard(self) -> ReceivedAudio: ...


@dataclass
class Leg:
    """One call of one caller. Times are epoch ms."""

    caller: int
    conference: str
    """One conference from its start to its end; a name may serve several."""
    hz: int
    """The pitch of the tone that the caller sends all the time."""
    answered_ms: float
    ear: Ear = field(repr=False)
    life: int = 0
    """The number of Asterisk's life, counted from 0."""
    from_ms: float = inf
    """The time in a started conference from which, or soon after which, the others hear the caller."""
    to_ms: float = inf
    """The time until which the caller was in the conference for certain."""
    quiet: list[Span] = field(default_factory=list)
    """Spans in which the caller may be inaudible: during a change of mute, or a digit."""
    muted: list[Span] = field(default_factory=list)
    """Spans in which the caller is muted and must not be heard."""
    waits: list[Span] = field(default_factory=list)
    """Spans in which the caller certainly waits alone, with the wait sound."""
    must_end_ms: float | None = None
    """The time at which the conference ended for all: the call must then end without an action of the caller."""
    ended_ms: float = inf
    late: Sequence[tuple[float, float]] = ()
    """(time, delay in ms) of the caller's packets that this machine sent too late."""


@dataclass(frozen=True)
class Injected:
    kind: str
    start_ms: float
    end_ms: float
    """The time at which a killed component ran again and reported ready, or a stopped one continued."""
    ready_s: float = 0.0
    """Seconds from the component's start until that time."""

    @property
    def holds_up(self) -> bool:
        return BY_NAME[self.kind].holds_up

    @property
    def ends_calls(self) -> bool:
        return BY_NAME[self.kind].ends_calls


def due(at_ms: float, faults: Iterable[Injected]) -> float:
    """Return the earliest time, given the faults, for something that without faults could happen at `at_ms`."""
    for fault in sorted(faults, key=lambda fault: fault.start_ms):
        # A fault that starts while the answer is still awaited counts too.
        if fault.holds_up and fault.start_ms <= at_ms + SOON_MS and fault.end_ms > at_ms:
            at_ms = fault.end_ms
    return at_ms


SOON_MS = 1500.0


def stood_still(at_ms: float, ms: float, stalls: Iterable[Stall]) -> float:
    """Return the ms of that time, or just beside it, during which the machine let a runnable task not run."""
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
    """Return the last fault that had started by then."""
    begun = [fault for fault in faults if fault.start_ms <= at_ms]
    return max(begun, key=lambda fault: fault.start_ms, default=None)


@dataclass
class Life:
    """A life of Asterisk, from its start to its death."""

    number: int = 0
    died: asyncio.Event = field(default_factory=asyncio.Event)
    died_ms: float = 0.0
    back: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Counts:
    calls: int = 0
    """Answered calls."""
    mutes: int = 0
    pressed: list[float] = field(default_factory=list)
    """The time of each pressed digit."""
    beeps: list[float] = field(default_factory=list)
    """The end of each beep that a caller gave when the application asked for one."""
    unanswered: list[tuple[float, str]] = field(default_factory=list)
    """(time, reason) of each unanswered call that Asterisk's death does not explain."""
    dropped: list[tuple[float, str]] = field(default_factory=list)
    """Calls that ended although no caller or document ended them."""
    commands: list[tuple[float, str]] = field(default_factory=list)
    """Commands that the API never accepted."""
