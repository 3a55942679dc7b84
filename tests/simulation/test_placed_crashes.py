"""Crashes while calls are placed: each request ends in exactly one of dialed and told, or refused; no phone rings twice
for one call, and no call is lost, wherever the application dies."""

from __future__ import annotations

import os
from collections import Counter
from random import Random

import pytest

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from tests.simulation import observed
from tests.simulation.mortal import Mortal, cut_everywhere
from tests.simulation.world import Lane, placed

LONG = os.environ.get("ARI_CONF_SIMULATION") == "long"
SEEDS, EVERY = (200, 1) if LONG else (60, 3)
DEEDS = 16
KINDS = ("place",) * 3 + ("phone",) * 6 + ("hear",) * 4 + ("time", "time", "cancel", "finish", "hang up")
MOMENTS = (200, 1000, 6000, 30_000)

PlacedDeed = tuple[str, int]


class MortalCaller(Mortal):
    """Mortal application whose API places calls, and phones that ring and answer them."""

    def _others(self, at: int, what: str, number: int) -> None:
        match what:
            case "place":
                self._command(placed(f"{at}", number, self.now + 10**9))
            case "cancel":
                self._command(self._cancel(at, number))
            case "phone":
                self.phone(number)
            case "hear":
                self.hear(number)
            case _:
                super()._others(at, what, number)

    def _command(self, received: ev.CommandReceived) -> None:
        self.commanded.append(received)
        self._put(Lane("news", "commands"), received)

    def _cancel(self, at: int, number: int) -> ev.CommandReceived:
        commands = [c.addressed.command for c in self.commands_so_far if isinstance(c.addressed, api.ForAccount)]
        uuids = [each.call_uuid for c in commands if isinstance(c, api.PlaceCalls) for each in c.calls] or ["none"]
        addressed = api.ForCall("A", uuids[number % len(uuids)], api.HangUpCall())
        return ev.CommandReceived(f"cancel{at}", addressed, self.now + 10**9)

    def place_all(self, course: tuple[PlacedDeed, ...]) -> None:
        self.commands_so_far: list[ev.CommandReceived] = []
        for at, (what, number) in enumerate(course):
            if what == "place":
                self.commands_so_far.append(placed(f"{at}", number, 0))
            self.do(at, (what, number))  # type: ignore[arg-type]
        # A channel that may not have been dialed is replaced after 5 s.
        self.do(len(course), ("time", 12_000))
        self.finish_all()
        # Ring timeouts, and channels that may not have been dialed.
        self._wait(400_000)
        self.finish_all()


def course(seed: int) -> tuple[PlacedDeed, ...]:
    dice = Random(seed)
    deeds: list[PlacedDeed] = [("place", dice.randrange(10_000))]
    for _ in range(DEEDS):
        kind = dice.choice(KINDS)
        deeds.append((kind, dice.choice(MOMENTS) if kind == "time" else dice.randrange(10_000)))
    return tuple(deeds)


def judge(world: MortalCaller, *, was_away: bool) -> None:
    """Check what holds after every course, however often the application died. `was_away`: it was away for a while."""
    assert observed.left(world) == []
    observed.fates(world)
    orders = [c.addressed.command for c in world.commands_so_far if isinstance(c.addressed, api.ForAccount)]
    placing = [order for order in orders if isinstance(order, api.PlaceCalls)]
    # An outage may last longer than a short ring_timeout, or begin just before it is reached.
    short = {call.call_uuid for order in placing if order.options.ring_timeout_s < 120 for call in order.calls}
    replied, ends, rings = dict[str, int](), Counter[str](), Counter[str]()
    verdicts, machines = Counter[str](), set[str]()
    for effect in world.written.outbox:
        match effect:
            case do.CommandReply(command_id, status, body):
                replied[command_id] = status
                uuids = dict(body).get("request_uuid", ())
                ends.update(dict.fromkeys((uuids,) if isinstance(uuids, str) else uuids, 0))
            case do.PostCallback(_, _, _, _, params) if dict(params)["Event"] == "Hangup":
                said = dict(params)
                ends[said["CallUUID"]] += 1
                if said["HangupCauseCode"] == "6010" and said["CallUUID"] not in short:
                    assert said["CallUUID"] in world.asterisk.dialed_calls, "given up, and never dialed"
                    assert said["CallUUID"] not in world.asterisk.answered_calls, "given up, though it was answered"
                if not was_away and said["HangupCauseCode"] == "0":
                    assert said["CallUUID"] in world.asterisk.dialed_calls, "it exists, and was never dialed"
                    assert said["CallUUID"] not in world.asterisk.answered_calls, "its answer was not noticed"
            case do.PostCallback(_, _, _, _, params) if dict(params)["Event"] == "Ring":
                rings[dict(params)["CallUUID"]] += 1
    for effect in world.written.outbox:
        if isinstance(effect, do.PostCallback):
            told = dict(effect.params)
            verdicts[told["CallUUID"]] += told["Event"] == "MachineDetection"
            assert told["CallUUID"] not in machines or "Machine" in told, "a machine is one in all later requests"
            machines |= {told["CallUUID"]} if told.get("Machine") == "true" else set()
    assert all(number <= 1 for number in verdicts.values()), "the verdict is told once"
    assert all(replied.get(command.command_id) == 201 for command in world.commands_so_far), "a request is lost"
    assert all(number == 1 for uuid, number in ends.items() if uuid.startswith("placed")), "the end is told once"
    assert all(number == 1 for number in rings.values()), "the ring URL is told once"


def cut(seed: int, dies: frozenset[int], away: int = 0) -> MortalCaller:
    world = MortalCaller(dies, away)
    world.place_all(course(seed))
    judge(world, was_away=away > 0)
    return world


def cut_placed_courses(seeds: int, every: int) -> None:
    for seed in range(seeds):
        cut_everywhere(cut, seed, every)


@pytest.mark.parametrize("part", range(4))
def test_wherever_it_dies_each_call_is_dialed_and_told_or_refused(part: int) -> None:
    for seed in range(part, SEEDS, 4):
        cut_everywhere(cut, seed, EVERY)
