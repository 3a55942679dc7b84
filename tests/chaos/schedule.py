"""What dies, and when: decided by a seed before anything runs, so that a run can be had again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    name: str
    part: str
    """What it happens to: a part suffers one thing at a time."""
    shortest_s: float
    longest_s: float
    """For so long the part stays away; then it is started again, or continues."""
    holds_up: bool
    """Calls that come meanwhile may wait for its end; nobody in a call notices all the same."""
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
"""By then everybody is in."""
REST_S = (0.8, 3.0)
"""Between the end of one and the beginning of the next."""
TOGETHER = 0.2
"""So many begin while the one before still lasts."""
SETTLES_S = 8.0
"""After Asterisk has died: its callers call again, and hear each other, before the next."""
RESTARTS_S = 1.5
"""What a part takes to start, as the schedule counts it."""


@dataclass(frozen=True)
class Fault:
    at_s: float
    """From the beginning of the run."""
    kind: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.kind}" + (f", for {self.for_s:.1f} s" if self.for_s else "")


def schedule(seed: int, seconds: float, kinds: Sequence[str] = tuple(BY_NAME)) -> list[Fault]:
    """Of every kind as often as of any other, give or take one, in an order of its own each time."""
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
