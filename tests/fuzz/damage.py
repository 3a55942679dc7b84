"""State that is damaged: cut, missing, of another version, with anything in place of anything, or what is another's.

What can't be read, and what does not fit, costs its own call or conference. All others go on as they were; whatever
happens then, no step breaks; and when all have hung up, nothing is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from random import Random
from typing import Any

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.directory import Directory
from ari_conf.core.reconcile import There
from ari_conf.core.reconcile_parts import compared_in_parts, expected_of_each
from ari_conf.written import encoded
from tests.fakes.asterisk import Asterisk
from tests.simulation.test_commands import Commanded
from tests.simulation.test_simulation import SMOOTH
from tests.simulation.test_simulation import play as act

Restored = Callable[[Mapping[str, bytes]], tuple[list[Call], list[Conference], int]]
INSTEAD: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**400, 1e300, "", "x", "a.b", "Call", "mixed", "leaving", "ready", "gone", "held",
    "released", "stopping", "playing", "waiting", "done", [], ["x"], {}, {"_": "Call"}, {"_": "Player"}, [[[[]]]],
    {"1": None}, "9" * 300,
)  # fmt: skip
DOCUMENTS = ("elements", "element", "items", "headers")
"""Most of what is written, and the least interesting."""
HOUSES = 8
NOT_ANOTHERS = ("channel_id", "recording_id")
"""Of two calls that say in all places that they have one channel nobody can tell which is right; nor of recordings."""


class House:
    """Calls and conferences in many of their states, as they were in one moment."""

    def __init__(self, seed: int) -> None:
        dice, world = Random(seed), Commanded()
        for _ in range(150 + 20 * seed):
            if dice.random() < 0.12:
                world.command(dice)
            else:
                act(world, (dice.choice((*SMOOTH, "arrive")), dice.randrange(10_000)))
        if seed % 2:
            world.settle()
        self.now = world.now
        self.asterisk: Asterisk = world.asterisk
        self.next_member_id = world.directory.next_member_id
        self.things = {**world.directory.calls, **world.directory.conferences}
        self.written = {key: encoded(thing) for key, thing in self.things.items()}
        self.members = {
            key: [m.call_uuid for m in c.members.values()] for key, c in world.directory.conferences.items()
        }
        others = [
            *self.things,
            *self.asterisk.channels,
            *(getattr(thing, "name", "") for thing in self.things.values()),
        ]
        self.instead = (*INSTEAD, *sorted(set(others)))


@cache
def house(seed: int) -> House:
    return House(seed)


def play(given: bytes, restored: Restored) -> None:
    """`given`: the first byte says of which house; three more each, what is damaged, where and how. With 255 first, the
    rest is what is written there instead."""
    lived = house(given[0] % HOUSES if given else 0)
    keys = sorted(lived.written)
    state = {**lived.written, "next_member_id": b"%d" % lived.next_member_id}
    damaged: set[str] = set()
    if given[:1] == b"\xff":
        damaged.add(keys[len(given) % len(keys)])
        state[keys[len(given) % len(keys)]] = given[1:]
    else:
        for at in range(1, min(len(given), 60) - 2, 3):
            key = keys[given[at] % len(keys)]
            damaged.add(key)
            state[key] = _damaged(state[key], given[at + 1], given[at + 2], lived.instead)
    calls, conferences, next_member_id = restored(state)
    assert next_member_id >= 1
    _Life(lived, damaged).live(calls, conferences, next_member_id)


def _damaged(text: bytes, where: int, how: int, instead: tuple[Any, ...]) -> bytes:
    try:
        shot = json.loads(text)
    except ValueError:
        return text[: where % (len(text) + 1)]
    places = list(_places(shot, DOCUMENTS if where % 4 else ()))
    if not places or how == 255:
        return text[: where % len(text)]
    holder, key = places[(where * 31 + how) % len(places)]
    value = instead[how % len(instead)]
    if how % 5 == 0 or (key in NOT_ANOTHERS and value not in INSTEAD):
        del holder[key]
    else:
        holder[key] = value
    return json.dumps(shot).encode()


def _places(shot: Any, without: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    keys = list(shot) if isinstance(shot, dict) else range(len(shot)) if isinstance(shot, list) else ()
    for key in keys:
        yield shot, key
        if key not in without:
            yield from _places(shot[key], without)


class _Life:
    """What becomes of a house whose state was damaged."""

    def __init__(self, lived: House, damaged: set[str]) -> None:
        self._lived = lived
        self._now = lived.now
        ids = iter(f"new{n}" for n in range(10**6))
        self._directory = Directory(lambda: next(ids))
        self._under_way: list[do.Effect] = []
        concerned = {key for key, members in lived.members.items() if key in damaged or damaged.intersection(members)}
        theirs = {call for key in concerned for call in lived.members[key]}
        self._intact = {key for key in lived.things if key not in damaged}
        self._others = self._intact - concerned - theirs
        """Neither they nor what they refer to is damaged."""
        self._with = {call for key in concerned - damaged for call in lived.members[key]} - damaged
        """Calls that are not damaged, in conferences that are not either, but in which there is one that is."""

    def live(self, calls: list[Call], conferences: list[Conference], next_member_id: int) -> None:
        directory = self._directory
        for at in range(0, max(len(calls), len(conferences)), 3):
            directory.restore(calls[at : at + 3], conferences[at : at + 3], next_member_id)
        effects = directory.restored(self._now)
        self._spared(effects)
        self._take(effects)
        self._is_whole()
        self._compare()
        for channel_id in (*self._lived.asterisk.channels, "x", ""):
            for event in _happens(channel_id):
                self._receive(event)
        for playback_id in tuple(self._lived.asterisk.playbacks):
            self._receive(ev.PlaybackFinished(playback_id))
        self._receive(ev.AccountWatched("A", self._now + 5000))
        self._pass(60_000)
        self._end()

    def _spared(self, effects: list[do.Effect]) -> None:
        directory, things = self._directory, self._lived.things
        for key in self._others:
            found = directory.calls.get(key) or directory.conferences.get(key)
            assert found == things[key], "it goes on as it was"
        channels = {thing.channel_id for key in self._others if isinstance(thing := things[key], Call)}
        for effect in effects:
            target = getattr(effect, "target", None)
            channel_id = target.id if target is not None else getattr(effect, "channel_id", "")
            assert channel_id not in channels, f"nothing is done to others: {effect}"
            assert getattr(effect, "bridge_id", "") not in self._others, f"nothing is done to others: {effect}"
        given_up = directory._given_up & (self._others | self._with)
        assert not given_up, f"nobody else is given up: {given_up}"

    def _is_whole(self) -> None:
        """Each of those that are left refers to what there is."""
        directory = self._directory
        for call in directory.calls.values():
            assert directory._channels.get(call.channel_id) == call.call_uuid
            assert (directory._member(call) is not None) == (call.conference_id is not None)
        for conference in directory.conferences.values():
            for member in conference.members.values():
                assert directory._member(directory.calls[member.call_uuid]) is member

    def _compare(self) -> None:
        asterisk = self._lived.asterisk
        there = There(
            {c.channel_id: c.up for c in asterisk.channels.values()},
            {b.bridge_id: frozenset(b.channels) for b in asterisk.bridges.values()},
            frozenset(asterisk.playbacks),
            frozenset(asterisk.recordings),
        )
        before = dict(expected_of_each(self._directory))
        for found in compared_in_parts(self._directory, before, there, why="takeover", ours=bool, conferences=2):
            self._take(self._directory.resume(found.again, self._now))
            for event in found.missed:
                self._receive(event)

    def _receive(self, event: ev.Event) -> None:
        # Whatever it is, it breaks nothing: nobody is to be given up any more.
        self._take(self._directory.receive(event, self._now))

    def _take(self, effects: list[do.Effect]) -> None:
        self._under_way += [effect for effect in effects if not isinstance(effect, do.PostCallback | do.ReportProblem)]
        for key, thing in self._directory.touched().items():
            assert thing is None or encoded(thing), f"{key} can be written"

    def _pass(self, ms: int) -> None:
        until, turns = self._now + ms, 0
        while (deadline := self._directory.deadline) is not None and deadline <= until:
            turns = turns + 1 if deadline <= self._now else 0
            assert turns < 50, "a deadline that never passes: a busy loop"
            self._now = max(self._now, deadline)
            self._receive(ev.TimePassed())
        self._now = until

    def _end(self) -> None:
        """All channels are gone, and what is asked fails."""
        for call in list(self._directory.calls.values()):
            self._receive(ev.ChannelHungUp(call.channel_id))
        for _ in range(60):
            while self._under_way:
                self._receive(ev.EffectFailed(self._under_way.pop(), "all are gone", gone=True))
            if not self._directory.calls and not self._directory.conferences:
                return
            self._pass(60_000)
        assert not self._directory.calls, "a call is stuck"
        assert not self._directory.conferences, "a conference is stuck"


def _happens(channel_id: str) -> Iterator[ev.Event]:
    yield ev.TalkingStarted(channel_id)
    yield from (ev.DigitReceived(channel_id, digit) for digit in "12*#")
    yield ev.BeepHeard(channel_id)
    yield ev.TalkingFinished(channel_id)
