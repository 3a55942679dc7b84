"""Damaged state: cut off, missing, of another version, with arbitrary or foreign values in arbitrary places.

A record that cannot be read, or does not fit, costs only its own call or conference. All others continue unchanged. No
later event may raise an exception, and after all callers have hung up, nothing may be left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from random import Random
from typing import Any

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.engine import Engine
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.reconciliation.batches import expectations_by_owner, plan_in_batches
from ari_conf.core.restoration import Restoration
from ari_conf.store.state_codec import encode
from tests.fakes.asterisk import Asterisk
from tests.simulation.test_commands import Commanded
from tests.simulation.test_simulation import SMOOTH
from tests.simulation.test_simulation import play as act

Restored = Callable[[Mapping[str, bytes]], tuple[list[Call], list[Conference], int]]
INSTEAD: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**400, 1e300, "", "x", "a.b", "Call", "in_bridge", "leaving", "left",
    "ready", "destroyed", "granted", "released", "stopping", "playing", "waiting", "done", "running", "hanging_up",
    "ended", [], ["x"], {}, {"type": "Call"}, {"type": "Player"}, [[[[]]]],
    {"1": None}, "9" * 300,
)  # fmt: skip
DOCUMENTS = ("elements", "element", "items", "headers")
"""Fields with most of the state's bytes, and the least interesting ones."""
HOUSES = 8
NOT_ANOTHERS = ("channel_id", "recording_id")
"""Fields that are not replaced by another object's value: of two calls or recordings with the same id, neither is
provably right."""


class House:
    """Calls and conferences in many states, at one moment."""

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
        self.next_member_id = world.engine.registry.next_member_id
        self.things = {**world.engine.calls, **world.engine.conferences}
        self.written = {key: encode(thing) for key, thing in self.things.items()}
        self.members = {key: [m.call_uuid for m in c.members.values()] for key, c in world.engine.conferences.items()}
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
    """Damage the state as `given` says, restore it, and check the result.

    The first byte of `given` chooses the house; then each three bytes choose the record, the place and the kind of
    damage. If the first byte is 255, the rest replaces a record.
    """
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
    """The later life of a house whose state was damaged."""

    def __init__(self, lived: House, damaged: set[str]) -> None:
        self._lived = lived
        self._now = lived.now
        ids = iter(f"new{n}" for n in range(10**6))
        self._engine = Engine(lambda: next(ids))
        self._under_way: list[do.Effect] = []
        concerned = {key for key, members in lived.members.items() if key in damaged or damaged.intersection(members)}
        theirs = {call for key in concerned for call in lived.members[key]}
        self._intact = {key for key in lived.things if key not in damaged}
        self._others = self._intact - concerned - theirs
        """Objects that are undamaged and refer only to undamaged objects."""
        self._with = {call for key in concerned - damaged for call in lived.members[key]} - damaged
        """Undamaged calls in undamaged conferences that also have damaged calls."""

    def live(self, calls: list[Call], conferences: list[Conference], next_member_id: int) -> None:
        restoration = Restoration(self._engine)
        for at in range(0, max(len(calls), len(conferences)), 3):
            restoration.add(calls[at : at + 3], conferences[at : at + 3], next_member_id)
        effects = restoration.finish(self._now)
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
        engine, things = self._engine, self._lived.things
        for key in self._others:
            found = engine.calls.get(key) or engine.conferences.get(key)
            assert found == things[key], "it goes on as it was"
        channels = {thing.channel_id for key in self._others if isinstance(thing := things[key], Call)}
        for effect in effects:
            target = getattr(effect, "target", None)
            channel_id = target.id if target is not None else getattr(effect, "channel_id", "")
            assert channel_id not in channels, f"nothing is done to others: {effect}"
            assert ids.conference_of(getattr(effect, "bridge_id", "")) not in self._others, (
                f"nothing is done to others: {effect}"
            )
        given_up = engine.abort_handler.aborted & (self._others | self._with)
        assert not given_up, f"nobody else is given up: {given_up}"

    def _is_whole(self) -> None:
        """Check that the remaining objects refer only to existing ones."""
        engine = self._engine
        for call in engine.calls.values():
            assert engine.registry.call_by_channel.get(call.channel_id) == call.call_uuid
            assert (engine.registry.member_of(call) is not None) == (call.conference_id is not None)
        for conference in engine.conferences.values():
            for member in conference.members.values():
                assert engine.registry.member_of(engine.calls[member.call_uuid]) is member

    def _compare(self) -> None:
        asterisk = self._lived.asterisk
        there = AsteriskState(
            {c.channel_id: c.up for c in asterisk.channels.values()},
            {b.bridge_id: frozenset(b.channels) for b in asterisk.bridges.values()},
            frozenset(asterisk.playbacks),
            frozenset(asterisk.recordings),
        )
        before = dict(expectations_by_owner(self._engine))
        for found in plan_in_batches(self._engine, before, there, why="takeover", ours=bool, conferences=2):
            self._take(self._engine.replay(found.repeat, self._now))
            for event in found.missed_events:
                self._receive(event)

    def _receive(self, event: ev.Event) -> None:
        # Whatever the event is, it must raise nothing: no object may be given up any more.
        self._take(self._engine.handle_event(event, self._now))

    def _take(self, effects: list[do.Effect]) -> None:
        self._under_way += [effect for effect in effects if not isinstance(effect, do.PostCallback | do.ReportProblem)]
        for key, thing in self._engine.take_changes().items():
            assert thing is None or encode(thing), f"{key} can be written"

    def _pass(self, ms: int) -> None:
        until, turns = self._now + ms, 0
        while (deadline := self._engine.deadline) is not None and deadline <= until:
            turns = turns + 1 if deadline <= self._now else 0
            assert turns < 50, "a deadline that never passes: a busy loop"
            self._now = max(self._now, deadline)
            self._receive(ev.DeadlineReached())
        self._now = until

    def _end(self) -> None:
        """End all channels and let all pending effects fail."""
        for call in list(self._engine.calls.values()):
            self._receive(ev.ChannelHungUp(call.channel_id))
        for _ in range(60):
            while self._under_way:
                self._receive(ev.EffectFailed(self._under_way.pop(), "all are gone", target_gone=True))
            if not self._engine.calls and not self._engine.conferences:
                return
            self._pass(60_000)
        assert not self._engine.calls, "a call is stuck"
        assert not self._engine.conferences, "a conference is stuck"


def _happens(channel_id: str) -> Iterator[ev.Event]:
    yield ev.TalkingStarted(channel_id)
    yield from (ev.DigitReceived(channel_id, digit) for digit in "12*#")
    yield ev.BeepHeard(channel_id)
    yield from (ev.ListeningStarted(channel_id), ev.PhraseStarted(channel_id, 100), ev.PhraseEnded(channel_id, 160))
    yield ev.ToneHeard(channel_id)
    yield ev.TalkingFinished(channel_id)
