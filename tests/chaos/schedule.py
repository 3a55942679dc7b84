"""Fault schedule: a seed decides it before anything runs, so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    name: str
    part: str
    """The affected component: it suffers one fault at a time."""
    shortest_s: float
    longest_s: float
    """The range of seconds for which the component is down before it is restarted or continues."""
    holds_up: bool
    """True if calls that arrive during the fault may wait for its end; callers in a call must notice nothing
    even so."""
    ends_calls: bool = False


KINDS = (
    Kind("application killed", "serve", 0.2, 3.0, holds_up=True),
    Kind("application killed listening", "serve", 0.2, 3.0, holds_up=True),
    Kind("application killed rendering", "serve", 0.2, 3.0, holds_up=True),
    Kind("application killed taking over", "serve", 0.0, 1.0, holds_up=True),
    Kind("application stopped", "serve", 0.0, 2.0, holds_up=True),
    Kind("application paused", "serve", 1.0, 7.0, holds_up=True),
    Kind("both applications killed", "serve", 0.2, 2.0, holds_up=True),
    Kind("worker killed", "worker", 0.0, 3.0, holds_up=False),
    Kind("worker stopped", "worker", 0.0, 2.0, holds_up=False),
    Kind("worker paused", "worker", 1.0, 5.0, holds_up=False),
    Kind("web killed", "web", 0.0, 2.0, holds_up=False),
    Kind("redis killed", "redis", 0.2, 6.0, holds_up=False),
    Kind("redis paused", "redis", 1.0, 6.0, holds_up=False),
    Kind("websocket closed", "websocket", 0.0, 0.0, holds_up=True),
    Kind("websocket half-open", "websocket", 6.0, 8.0, holds_up=True),
    Kind("s3 killed", "s3", 1.0, 6.0, holds_up=False),
    Kind("asterisk killed", "asterisk", 0.0, 2.0, holds_up=True, ends_calls=True),
)
BY_NAME = {kind.name: kind for kind in KINDS}

FIRST_S = 5.0
"""Seconds until all callers are in."""
REST_S = (0.8, 3.0)
"""Seconds between the end of a fault and the start of the next."""
TOGETHER = 0.2
"""The share of faults that start during the previous one."""
SETTLES_S = 8.0
"""Seconds after Asterisk's death in which its callers call again and hear each other, before the next fault."""
RESTARTS_S = 1.5
"""The assumed seconds for the start of a component."""


@dataclass(frozen=True)
class Fault:
    at_s: float
    """Seconds from the start of the run."""
    kind: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.kind}" + (f", for {self.for_s:.1f} s" if self.for_s else "")


def schedule(seed: int, seconds: float, kinds: Sequence[str] = tuple(BY_NAME)) -> list[Fault]:
    """Return a schedule in which the counts of all kinds differ by at most one, in random order."""
    dice = random.Random(f"schedule {seed}")
    faults: list[Fault] = []
    at, free = FIRST_S, 0.0
    for kind in _rounds(dice, kinds):
        fault = Fault(round(at, 1), kind.name, round(dice.uniform(kind.shortest_s, kind.longest_s), 1))
        ends = fault.at_s + fault.for_s + (SETTLES_S if kind.ends_calls else 0.0)
        if ends > seconds:
            return faults
        faults.append(fault)
        together = dice.random() < TOGETHER and not kind.ends_calls
        free = max(free, ends + RESTARTS_S)
        at = at + dice.uniform(*REST_S) if together else free + dice.uniform(*REST_S)
    return faults


def _rounds(dice: random.Random, names: Sequence[str]) -> Iterator[Kind]:
    while names:
        yield from (BY_NAME[name] for name in dice.sample(list(names), len(names)))
